"""The benchmark tables, one command each: `replayguard benchmark NAME --corpus ROOT`.

A table is a declaration (`catalogue`): its cells, and what was published beside them (`published`). A cell is a
training and a test (`cells`); one engine (`engine`) plans them, runs what is not finished, and writes the page.
"""
