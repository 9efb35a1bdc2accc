"""The audio classifier: labelled sound in, a trained, distilled or adapted AST or PSLA out."""
