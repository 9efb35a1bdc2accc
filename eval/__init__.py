"""How good a detector is: metrics, score files, breakdowns, plots and the report.

`eval.metrics` imports NumPy alone and may be imported from anywhere; the rest of this package is joined to
the other rooms by the front door only. Always `from eval.metrics import eer`, never `import eval`, which
hides the builtin.
"""
