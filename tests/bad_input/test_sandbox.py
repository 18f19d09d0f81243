"""Bad input of the sandbox and of programs in answers: one line that says what was given."""

import pytest
from rich.console import Console

from configs.programs import get_config
from experiments import programs
from research.apps import pal
from research.apps.protocol import Options
from research.apps.sandbox import Limits, require, run


class Silent:
    """A model that is never asked."""

    name, window = "silent", 600

    def count(self, prompt):
        return len(prompt)


def command(folder, **changes):
    (folder / "empty").mkdir()
    settings = get_config("tiny").to_dict() | {"data": str(folder / "empty"), "sandbox": "unsafe"} | changes
    programs.work(settings, folder, Console())


CASES = {
    "no processor time": (lambda p: Limits(cpu=0), "limit cpu=0: expected a number above 0"),
    "negative wall": (lambda p: Limits(wall=-1.5), "limit wall=-1.5: expected a number above 0"),
    "wall that is no number": (lambda p: Limits(wall=float("nan")), "limit wall=nan: expected a number above 0"),
    "endless wall": (lambda p: Limits(wall=float("inf")), "limit wall=inf: expected a number above 0"),
    "no output": (lambda p: Limits(output=0), "limit output=0: expected a number above 0"),
    "no processes": (lambda p: Limits(processes=0), "limit processes=0: expected a number above 0"),
    "limit that is no number": (lambda p: Limits(memory="1 GB"), "limit memory='1 GB': expected a number above 0"),
    "limit that is a truth value": (lambda p: Limits(disk=True), "limit disk=True: expected a number above 0"),
    "half a second of processor time": (lambda p: Limits(cpu=0.5), "limit cpu=0.5: expected a whole number"),
    "unknown level": (
        lambda p: run("pass", level="namespace"),
        r"unknown level 'namespace', did you mean 'namespaces'\?; have \['unsafe', 'bubblewrap', 'namespaces'\]",
    ),
    "unknown level, asked beforehand": (lambda p: require("docker"), "unknown level 'docker'; have"),
    "file outside": (lambda p: run("pass", files={"../a": ""}), r"file '../a': expected a relative path inside"),
    "file at the root": (lambda p: run("pass", files={"/a": ""}), "file '/a': expected a relative path inside"),
    "file without a name": (lambda p: run("pass", files={"": ""}), "file '': expected a relative path inside"),
    "no programs": (lambda p: pal.solve(Silent(), ["?"], samples=0), "votes over at least 1 program.*given 0 at 0"),
    "equal programs": (
        lambda p: pal.solve(Silent(), ["?"], samples=3),
        "over several at a temperature above 0; given 3 at 0",
    ),
    "question over the window": (
        lambda p: pal.solve(Silent(), ["Why? " * 30], options=Options(max_new_tokens=500)),
        "question of 179 tokens and a program of up to 500 do not fit into the window of 600: Why",
    ),
    "unknown set": (lambda p: command(p, sets=("gsmhard",)), "unknown set 'gsmhard', did you mean 'gsm_hard'"),
    "negative number of programs": (lambda p: command(p, limit=-1), "limit is a number of programs.*given -1"),
    "no data": (lambda p: command(p, sets=("aqua",)), "no aqua_pal_outputs.jsonl in "),
    "unknown argument of the config": (
        lambda p: get_config("small"),
        "unknown argument 'small' of configs/programs.py",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case, tmp_path):
    call, message = CASES[case]
    with pytest.raises(ValueError, match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
