"""The tables the project reproduces by one command each, the published figures beside."""
