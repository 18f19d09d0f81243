"""Bad input of benchmarks and their metrics: one line that names task, file and line instead of a number."""

import json

import pytest

from research.apps.prompting import Item, Outcome, Task
from research.evaluation.benchmarks import METRICS, big_bench, humaneval, load, pass_at_k, scored

TWO = Task("two", [Item("0", "q", (" a", " b"), (0,)), Item("1", "q", (" a", " b"), (1,))], ("acc",))
CODE = Task("code", [Item("0", "q", info={"prompt": "", "test": "", "entry_point": "f"})], ("pass@1",))


def written(folder, name, *lines):
    """The folder, with this file in it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return folder


def metric(name, outcomes, task=TWO):
    return METRICS[name](task, outcomes)


RTE = "index\tsentence1\tsentence2\tlabel"
STSB = "sentence1\tsentence2\tscore"
MMLU = "mmlu/test/anatomy_test.csv"
TRUTH = "Category,Question,Best Answer,Correct Answers,Incorrect Answers"
COT = "bbh/cot-prompts/navigate.txt"
BOOLQ = {"question": "q", "passage": "p", "label": 1}
NONE_RIGHT = {"input": "q", "target_scores": {"a": 0}}
WSC = {"text": "Ann left.", "label": True, "target": {"span1_text": "Ann", "span2_text": "she", "span2_index": 1}}
RECORD = {
    "passage": {"text": "Ann left.", "entities": [{"start": 0, "end": 2}]},
    "qas": [{"query": "@placeholder left", "answers": [{"text": "Bob"}]}],
}

CASES = {
    "unknown benchmark": (lambda p: load("mmul", p), r"unknown benchmark 'mmul', did you mean 'mmlu'\?; have \['bbh'"),
    "unknown task": (lambda p: load("glue/rtee", p), "unknown benchmark 'glue/rtee', did you mean 'glue/rte'"),
    "unknown subject": (lambda p: load("mmlu/anatomi", p), "did you mean 'mmlu/anatomy'"),
    "unknown option": (
        lambda p: load("commonsense/piqa", p, from_="text"),
        r"commonsense/piqa takes no option 'from_', did you mean 'form'\?; have \['form'\]",
    ),
    "option of another benchmark": (
        lambda p: load("gsm8k", p, tfds="gsm8k"),
        r"gsm8k takes no option 'tfds'; have \[\]",
    ),
    "unknown form": (lambda p: load("commonsense/piqa", p, form="txt"), "unknown form 'txt', did you mean 'text'"),
    "missing file": (lambda p: load("glue/mrpc", p), "no file glue/MRPC/dev.tsv under .*; looked for"),
    "missing group": (lambda p: load("mmlu", p), "no file mmlu/test/abstract_algebra_test.csv under"),
    "missing prompts": (
        lambda p: load("bbh/navigate", written(p, "bbh/bbh/navigate.json", {"examples": []})),
        "no file bbh/cot-prompts/navigate.txt",
    ),
    "missing column of a table": (
        lambda p: load("glue/rte", written(p, "rte/dev.tsv", "index\tsentence1\tlabel", "0\ta\tentailment")),
        r"rte/dev.tsv, line 1: no column 'sentence2'; it has \['index', 'sentence1', 'label'\]",
    ),
    "short row": (
        lambda p: load("glue/rte", written(p, "rte/dev.tsv", RTE, "0\ta\tb\tentailment", "1\ta\tb")),
        "rte/dev.tsv, line 3: no value for column 'label'",
    ),
    "unknown label": (
        lambda p: load("glue/rte", written(p, "rte/dev.tsv", RTE, "0\ta\tb\tentailed")),
        r"rte/dev.tsv, line 2: label 'entailed' is none of \['entailment', 'not_entailment'\]",
    ),
    "table without rows": (lambda p: load("glue/rte", written(p, "rte/dev.tsv", RTE)), "rte/dev.tsv has no rows"),
    "similarity above 5": (
        lambda p: load("glue/stsb", written(p, "STS-B/dev.tsv", STSB, "a\tb\t7")),
        "dev.tsv, line 2: score '7' is no number from 0 to 5",
    ),
    "similarity below 0": (lambda p: load("glue/stsb", written(p, "STS-B/dev.tsv", STSB, "a\tb\t-1")), "score '-1' is"),
    "similarity in words": (
        lambda p: load("glue/stsb", written(p, "STS-B/dev.tsv", STSB, "a\tb\tx")),
        "score 'x' is no",
    ),
    "missing column of an object": (
        lambda p: load(
            "superglue/boolq",
            written(p, "BoolQ/val.jsonl", {"question": "q", "passage": "p", "label": 1}, "", {"question": "q"}),
        ),
        r"BoolQ/val.jsonl, line 3: no column 'passage'; it has \['question'\]",
    ),
    "flat file of a nested task": (
        lambda p: load("superglue/multirc", written(p, "MultiRC/val.jsonl", {"passage": "text"})),
        "MultiRC/val.jsonl, line 1: .*expected MultiRC's published format",
    ),
    "label of no class": (
        lambda p: load("superglue/rte", written(p, "RTE/val.jsonl", {"premise": "a", "hypothesis": "b", "label": 2})),
        "line 1: label 2 is none of",
    ),
    "answer that is no entity": (
        lambda p: load("superglue/record", written(p, "ReCoRD/val.jsonl", RECORD)),
        r"line 1: none of the answers \['Bob'\] is among the entities \['Ann'\]",
    ),
    "pronoun that is not there": (
        lambda p: load("superglue/wsc", written(p, "WSC/val.jsonl", WSC)),
        "line 1: the pronoun 'she' does not begin a word of 'Ann left.'",
    ),
    "letter that is no option": (
        lambda p: load("mmlu/anatomy", written(p, MMLU, "q,w,x,y,z,A", "q,w,x,y,z,E")),
        r"anatomy_test.csv, line 2: label 'E' is none of \['A', 'B', 'C', 'D'\]",
    ),
    "question without options": (
        lambda p: load("mmlu/anatomy", written(p, MMLU, "q,w,x,y,z,A", "q,w,x")),
        "anatomy_test.csv, line 2: no value for column 'choice2'",
    ),
    "question without true answers": (
        lambda p: load("truthfulqa/mc2", written(p, "TruthfulQA.csv", TRUTH, "c,q?,b,,no")),
        "TruthfulQA.csv, line 2: a question needs true and false answers",
    ),
    "big-bench without examples": (
        lambda p: load("bigbench/x", written(p, "bigbench/x.json", {"name": "x"})),
        "bigbench/x.json: expected a BIG-bench task with a list of 'examples'",
    ),
    "big-bench scored by what is not here": (
        lambda p: load("bigbench/x", written(p, "bigbench/x.json", {"examples": [{}], "preferred_score": "bleu"})),
        r"cannot score by 'bleu'; have \['multiple_choice_grade', 'exact_str_match'\]",
    ),
    "big-bench without options": (
        lambda p: load("bigbench/x", written(p, "bigbench/x.json", {"examples": [{"input": "q", "target": "a"}]})),
        "bigbench/x.json, example 1: no column 'target_scores'",
    ),
    "options without a right one": (
        lambda p: load(
            "bigbench/x", written(p, "bigbench/x.json", {"examples": [{"input": "q", "target_scores": {"a": 0}}]})
        ),
        r"example 1: no option of \['a'\] has a grade above 0",
    ),
    "bbh that is no json": (
        lambda p: load(
            "bbh/navigate", written(written(p, "bbh/bbh/navigate.json", "{"), "bbh/cot-prompts/navigate.txt", "x")
        ),
        "navigate.json: expected JSON with 'examples'",
    ),
    "instruction without its format": (
        lambda p: load(
            "commonsense/piqa", written(p, "commonsense/piqa.json", [{"instruction": "Choose.", "answer": "a"}])
        ),
        "piqa.json, entry 1: the instruction does not end with 'Answer format",
    ),
    "solution without a number": (
        lambda p: load("gsm8k", written(p, "gsm8k/test.jsonl", {"question": "q", "answer": "5"})),
        "test.jsonl, line 1: the answer has no '#### '",
    ),
    "target that is no number": (
        lambda p: load("svamp", written(p, "svamp/svamp.jsonl", {"input": "q", "target": "five"})),
        "svamp.jsonl, line 1: the target 'five' is no number",
    ),
    "unknown metric": (
        lambda p: scored(Task("t", TWO.items, ("accu",)), []),
        r"unknown metric 'accu', did you mean 'acc'\?; have \['acc'",
    ),
    "fewer references than predictions": (
        lambda p: metric("acc", [Outcome(str(i), 0) for i in range(3)]),
        "two: 3 outcomes of 2 items, expected one of each; no item '2'",
    ),
    "fewer predictions than references": (
        lambda p: metric("acc", [Outcome("0", 0)]),
        "two: 1 outcomes of 2 items, expected one of each; no outcome of '1'",
    ),
    "one item twice": (lambda p: metric("f1", [Outcome(x, 0) for x in "011"]), "3 outcomes of 2 items.*some twice"),
    "no items": (lambda p: metric("acc", [], Task("t", [], ())), "t: 0 outcomes of 0 items"),
    "scores of other choices": (
        lambda p: metric("mc2", [Outcome(x, 0, scores=(0.0,)) for x in "01"]),
        "item '0' has 2 choices but scores of 1",
    ),
    "mass of scores that are no probabilities": (
        lambda p: metric("mc2", [], Task("t", TWO.items, (), by="byte")),
        "t: mc2 needs .*by='sum'; the task has 'byte'",
    ),
    "unknown sandbox": (
        lambda p: humaneval.passes("pass", level="namespace"),
        "unknown level 'namespace', did you mean 'namespaces'",
    ),
    "program of another task": (lambda p: humaneval.run_programs(CODE, [Outcome("9", None)], bool), "no item '9'"),
    "programs that have not been run": (
        lambda p: metric("pass@1", [Outcome("0", "return 1")], CODE),
        "code: the program of '0' has not been run; pass@1 needs.*run_programs",
    ),
    "fewer samples than k": (
        lambda p: metric("pass@10", [Outcome("0", "passed")], CODE),
        "pass@10 needs 10 or more samples.*n=1, c=1",
    ),
    "more right than samples": (lambda p: pass_at_k(2, 3, 1), "0 to all of them right; got n=2, c=3"),
    "aggregate without a score": (
        lambda p: big_bench.aggregate([TWO], {"one": 1.0}),
        r"no score of two; have \['one'\]",
    ),
}


@pytest.mark.parametrize("name", CASES, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_refused_with_its_reason(name, tmp_path):
    call, message = CASES[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
