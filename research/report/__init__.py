"""What a run shows to people: tables and progress in the terminal, figures, one self-contained page."""

from research.report.page import cards, columns, details, document, figure, note, section, table, text, tokens
from research.report.plots import bars, contours, curves, points, save, svg
from research.report.terminal import Steps, print_table, rich_table, seconds

__all__ = [
    "Steps",
    "bars",
    "cards",
    "columns",
    "contours",
    "curves",
    "details",
    "document",
    "figure",
    "note",
    "points",
    "print_table",
    "rich_table",
    "save",
    "seconds",
    "section",
    "svg",
    "table",
    "text",
    "tokens",
]
