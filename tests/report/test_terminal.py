import io

import pytest
from rich.console import Console

from research.report import Steps, print_table, seconds
from research.report.terminal import cell_text


def console() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=False)


def test_table_prints_its_numbers_readably():
    screen = console()
    print_table("Sizes", ["name", "parameters", "loss", "tied"], [["tiny", 1234567, 3.14159, True]], console=screen)
    printed = screen.file.getvalue()
    assert all(part in printed for part in ("Sizes", "parameters", "1,234,567", "3.142", "yes"))


def test_table_refuses_a_row_of_another_length():
    with pytest.raises(ValueError, match=r"2 columns.*'a', 1, 2"):
        print_table("t", ["x", "y"], [["a", 1, 2]], console=console())


@pytest.mark.parametrize(
    ("duration", "shown"),
    [(0.43, "0.4 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_seconds(duration, shown):
    assert seconds(duration) == shown


@pytest.mark.parametrize(("cell", "shown"), [(None, "–"), (False, "no"), (12345.6, "12,346"), (0.00012, "0.00012")])
def test_cells(cell, shown):
    assert cell_text(cell) == shown


def test_steps_show_count_rate_and_message():
    screen = console()
    with Steps("tune", 12, unit="tokens", units_per_step=100, already=10, console=screen) as bar:
        bar.advance(message="loss 3")
        bar.advance(message="loss 2")
    printed = screen.file.getvalue()
    assert "12/12" in printed and "tokens/s" in printed and "loss 2" in printed
