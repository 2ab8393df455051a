"""The report: one self-contained HTML page about a model, and the README's picture.

Reads a ``ReportData``; ``page.render`` returns the page, ``plots.draw_overview`` writes the picture.
"""
