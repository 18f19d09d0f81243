"""Rows that we wrote in the published formats of GLUE and SuperGLUE: tests only, nothing to score a model on."""

import json

import pytest

FIXTURE_GLUE = {
    "CoLA/dev.tsv": [
        "gj04\t1\t\tThe cat sat on the mat.",
        "gj04\t0\t*\tThe cat sat mat the on.",
        'gj04\t1\t\tShe said "no" twice.',
        "gj04\t0\t*\tHim said nothing it.",
    ],
    "SST-2/dev.tsv": ["sentence\tlabel", "a small joy \t1", "an hour lost \t0"],
    "SST-2/train.tsv": ["sentence\tlabel", "a small joy \t1", "it drags \t0"],
    "MRPC/dev.tsv": [
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        "1\t1\t2\tThe firm sold its ships .\tIts ships were sold by the firm .",
        '0\t3\t4\tHe called it " fair .\tThe fair opens in May .',
        "1\t5\t6\tRain fell all day .\tIt rained all day .",
    ],
    "STS-B/dev.tsv": [
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tmain-news\tf\t2012\t0\tnone\tnone\tA dog runs.\tA dog is running.\t5.000",
        "1\tmain-news\tf\t2012\t1\tnone\tnone\tA dog runs.\tA cat is running.\t2.600",
        "2\tmain-news\tf\t2012\t2\tnone\tnone\tA dog runs.\tShares fell.\t0.200",
    ],
    "QQP/dev.tsv": [
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "0\t1\t2\tHow old is Rome?\tWhat is the age of Rome?\t1",
        "1\t3\t4\tWho built Rome?\tHow old is Rome?\t0",
    ],
    "QQP/train.tsv": [
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
        "2\t5\t6\tWhy is the sky blue?",
        "3\t7\t8\tIs it late?\tIs it early?\t0",
    ],
    "QNLI/dev.tsv": [
        "index\tquestion\tsentence\tlabel",
        "0\tWhen was it built?\tIt was built in 1901.\tentailment",
        "1\tWho built it?\tIt was built in 1901.\tnot_entailment",
    ],
    "RTE/dev.tsv": [
        "index\tsentence1\tsentence2\tlabel",
        "0\tAnn bought a car.\tAnn owns a car.\tentailment",
        "1\tAnn sold a car.\tAnn owns a boat.\tnot_entailment",
    ],
    "WNLI/dev.tsv": [
        "index\tsentence1\tsentence2\tlabel",
        "0\tThe cup fell on the plate and it broke.\tThe plate broke.\t1",
        "1\tThe cup fell on the plate and it broke.\tThe floor broke.\t0",
    ],
} | {
    f"MNLI/dev_{kind}.tsv": [
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
        f"0\t1\t1e\t{kind}\t(\t(\t(\t(\tThe {kind} dog slept.\tA dog slept\te\te\te\te\te\tentailment",
        f"1\t1\t1n\t{kind}\t(\t(\t(\t(\tThe {kind} dog slept.\tIt was brown.\tn\tn\tn\tn\tn\tneutral",
        f"2\t1\t1c\t{kind}\t(\t(\t(\t(\tThe {kind} dog slept.\tIt ran.\tc\tc\tc\tc\tc\tcontradiction",
    ]
    for kind in ("matched", "mismatched")
}

FIXTURE_SUPERGLUE = {
    "BoolQ/val.jsonl": [
        {"question": "is rain wet", "passage": "Rain is water.", "idx": 0, "label": True},
        {"question": "is rain dry", "passage": "Rain is water.", "idx": 1, "label": False},
    ],
    "BoolQ/train.jsonl": [
        {"question": "is rain wet", "passage": "Rain is water.", "idx": 0, "label": True},
        {"question": "is sand wet", "passage": "Sand is dry.", "idx": 1, "label": False},
    ],
    "CB/val.jsonl": [
        {"premise": "He knew she left.", "hypothesis": "she left", "label": "entailment", "idx": 0},
        {"premise": "He doubts she left.", "hypothesis": "she left", "label": "contradiction", "idx": 1},
        {"premise": "He asks if she left.", "hypothesis": "she left", "label": "neutral", "idx": 2},
        {"premise": "He saw that she left.", "hypothesis": "she left", "label": "entailment", "idx": 3},
    ],
    "COPA/val.jsonl": [
        {"premise": "The jug broke.", "choice1": "It fell.", "choice2": "It was full.", "question": "cause", "label": 0}
        | {"idx": 0},
        {"premise": "The rain stopped.", "choice1": "He opened his umbrella.", "choice2": "He closed his umbrella."}
        | {"question": "effect", "label": 1, "idx": 1},
    ],
    "MultiRC/val.jsonl": [
        {
            "idx": 0,
            "version": 1.1,
            "passage": {
                "text": "Ann and Bob went out. Cid slept.",
                "questions": [
                    {
                        "question": "Who went out?",
                        "answers": [
                            {"text": "Ann", "idx": 0, "label": 1},
                            {"text": "Bob", "idx": 1, "label": 1},
                            {"text": "Cid", "idx": 2, "label": 0},
                        ],
                        "idx": 0,
                    },
                    {
                        "question": "Who slept?",
                        "answers": [{"text": "Cid", "idx": 3, "label": 1}, {"text": "Bob", "idx": 4, "label": 0}],
                        "idx": 1,
                    },
                ],
            },
        }
    ],
    "ReCoRD/val.jsonl": [
        {
            "source": "CNN",
            "passage": {
                "text": "Ann Lee met Bob in Rome.\n@highlight\nAnn Lee flew to Rome\n@highlight\nBob waited",
                "entities": [{"start": start, "end": end} for start, end in ((0, 6), (12, 14), (19, 22), (36, 42))],
            },
            "idx": 0,
            "qas": [
                {"query": "In the end @placeholder went home.", "answers": [{"start": 12, "end": 14, "text": "Bob"}]}
                | {"idx": 0}
            ],
        }
    ],
    "RTE/val.jsonl": [
        {"premise": "Ann bought a car.", "hypothesis": "Ann owns a car.", "label": "entailment", "idx": 0},
        {"premise": "Ann sold a car.", "hypothesis": "Ann owns a boat.", "label": "not_entailment", "idx": 1},
    ],
    "WiC/val.jsonl": [
        {"word": "bank", "sentence1": "The bank closed.", "sentence2": "The bank paid.", "idx": 0, "label": True}
        | {"start1": 4, "start2": 4, "end1": 8, "end2": 8, "version": 1.1},
        {"word": "bank", "sentence1": "The bank closed.", "sentence2": "Banks of a river.", "idx": 1, "label": False}
        | {"start1": 4, "start2": 0, "end1": 8, "end2": 5, "version": 1.1},
    ],
    "WSC/val.jsonl": [
        {
            "text": "Ann told Eve that she had won .",
            "target": {"span1_index": 0, "span2_index": index, "span1_text": name, "span2_text": "she"},
            "idx": i,
            "label": label,
        }
        # The second place is off by one, as a few published ones are.
        for i, (name, index, label) in enumerate([("Ann", 4, True), ("Eve", 5, False)])
    ],
}


@pytest.fixture(scope="session")
def fixture_root(tmp_path_factory):
    """A folder with all fixture files, in the folders that GLUE and SuperGLUE are published in."""
    root = tmp_path_factory.mktemp("fixture_benchmarks")
    written = {f"glue/{name}": "\n".join(lines) for name, lines in FIXTURE_GLUE.items()}
    written |= {f"superglue/{name}": "\n".join(map(json.dumps, rows)) for name, rows in FIXTURE_SUPERGLUE.items()}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root
