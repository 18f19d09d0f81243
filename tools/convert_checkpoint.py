"""Converts checkpoints between Hugging Face folders, our training runs and llama2.c files.

python tools/convert_checkpoint.py gpt2 runs/gpt2 --to run               hub id or folder -> our checkpoint
python tools/convert_checkpoint.py gpt2 runs/gpt2 --to run --quantize nf4    with its layers in four bits
python tools/convert_checkpoint.py runs/lifecycle/pretrain out/model     our checkpoint -> Hugging Face folder
python tools/convert_checkpoint.py stories260K.bin out/stories           llama2.c -> Hugging Face folder
python tools/convert_checkpoint.py out/model model.bin --version 0       anything -> llama2.c (legacy)
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from research import weights
from research.core import dtypes, tree
from research.core.types import Params
from research.interop import Card, Data, Extras, load_pretrained, save_pretrained
from research.interop.llama2c import load_llama2c, save_llama2c
from research.interop.run import is_run, load_run, save_run
from research.models import ModelConfig, build

FORMS = ("hf", "run", "llama2c")


class Source(NamedTuple):
    """What was read, and from what kind of source."""

    form: str
    config: ModelConfig
    params: Params
    extras: Extras | None = None
    meta: Mapping[str, Any] | None = None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder, a hub id, a run's checkpoint folder, or a .bin file of llama2.c")
    parser.add_argument("target", help="a folder, or a .bin file")
    parser.add_argument("--to", choices=FORMS, help="default: llama2c for a .bin target, else hf")
    parser.add_argument("--dtype", help="f32, bf16 or f16; default: as stored")
    parser.add_argument("--head", help="lm, mlm, sequence, token, scalar or none; default: as stored")
    parser.add_argument("--step", type=int, help="which checkpoint of a run; default: the newest sound one")
    parser.add_argument("--quantize", help="of a run: a method that needs no calibration, such as int8, nf4 or int4")
    parser.add_argument("--version", type=int, default=1, help="of the llama2.c file: 1, or 0 (legacy)")
    parser.add_argument("--tokenizer", help="file or folder of the tokenizer to put beside the weights")
    parser.add_argument("--card", help="JSON file with fields of the model card")
    parser.add_argument("--ignore", nargs="*", default=[], help="keys of config.json that change no computation")
    parser.add_argument("--max-shard-bytes", type=int, default=5_000_000_000)
    parser.add_argument("--overwrite", action="store_true", help="write into a target that already holds files")
    return parser.parse_args(arguments)


def read(options: argparse.Namespace) -> Source:
    """The model at the source, whatever its form."""
    path = Path(options.source)
    form = "llama2c" if path.is_file() or path.suffix == ".bin" else "run" if path.is_dir() and is_run(path) else "hf"
    if form != "run":
        refuse_unused(options, form, {"step": None})
    if form == "hf":
        loaded = load_pretrained(options.source, dtype=options.dtype, head=options.head, ignore=options.ignore)
        return Source(form, loaded.config, loaded.params, loaded.extras)
    refuse_unused(options, form, {"head": None, "ignore": []})
    if form == "run":
        config, params, meta = load_run(path, options.step)
    else:
        (config, params), meta = load_llama2c(path), None
    if options.dtype:
        kind = dtypes.dtype(options.dtype)
        params = jax.tree.map(lambda leaf: leaf.astype(kind), plain(params))
        meta = meta and {**meta, "config": {**meta["config"], "peft": ()}}
    return Source(form, config, params, None, meta)


def plain(params: Params) -> Params:
    """Arrays that compute what adapters and quantized weights do; what was trained for rounding is left unrounded."""
    aware = "qat" in weights.names(params)
    return weights.merge(weights.dequantize(weights.strip(params, "qat") if aware else params))


def refuse_unused(options: argparse.Namespace, form: str, defaults: Mapping[str, Any]) -> None:
    """An option that this conversion does not read is a mistake, not decoration."""
    if given := [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(options, name) != value]:
        raise ValueError(f"{', '.join(given)} does nothing for {form} here")


def parameters(source: Source) -> int:
    """Numbers in the weights, however many arrays stand for them."""
    return tree.count(build(source.config).abstract())


def card_of(options: argparse.Namespace, source: Source) -> Card:
    """The card from a JSON file, with what the source itself tells filled in."""
    facts = {"parameters": parameters(source), "family": source.config.family, "head": source.config.head}
    values: dict[str, Any] = {
        "title": Path(options.target).name,
        "facts": facts,
        "recipe": f"Converted from {source.form}.",
    }
    if source.form == "hf":
        values["parent"] = options.source
    if source.meta is not None:
        metrics = source.meta.get("metrics") or {}
        values["results"] = [{"metric": name, "value": value} for name, value in metrics.items()]
        values["facts"] = facts | {"step": source.meta["step"], "code": source.meta.get("git")}
    if options.card:
        given = json.loads(Path(options.card).read_text(encoding="utf-8"))
        known = [field.name for field in fields(Card)]
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"{options.card} has unknown fields {unknown}; a card has {known}")
        values |= given
        values["data"] = [Data(**item) for item in values.get("data", ())]
    return Card(**values)


def write(options: argparse.Namespace, source: Source) -> Path:
    """The model in the wanted form."""
    target = Path(options.target)
    form = options.to or ("llama2c" if target.suffix == ".bin" else "hf")
    if target.exists() and (target.is_file() or any(target.iterdir())) and not options.overwrite:
        raise ValueError(f"{target} already holds something; choose another target or pass --overwrite")
    if form != "hf":
        refuse_unused(options, form, {"tokenizer": None, "card": None, "max_shard_bytes": 5_000_000_000})
    if form != "llama2c":
        refuse_unused(options, form, {"version": 1})
    if form == "run":
        recipe: weights.Recipe = ((source.meta or {}).get("config") or {}).get("peft") or ()
        params = source.params
        if options.quantize:
            recipe = {"method": options.quantize}
            params = weights.quantize(plain(params), recipe)
        return save_run(target, source.config, params, recipe)
    refuse_unused(options, form, {"quantize": None})
    if form == "llama2c":
        return save_llama2c(target, source.config, plain(source.params), version=options.version)
    tokenizer: Any = source.extras
    if options.tokenizer:
        from research.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer)
    return save_pretrained(
        target,
        source.config,
        plain(source.params),
        tokenizer=tokenizer,
        generation_config=source.extras.generation if source.extras else None,
        hf_config=source.extras.hf_config if source.extras else None,
        card=card_of(options, source),
        max_shard_bytes=options.max_shard_bytes,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts; an error is one line and exit status 1."""
    options = parse(arguments)
    try:
        source = read(options)
        target = write(options, source)
    except (ValueError, TypeError, OSError) as error:
        print(f"convert_checkpoint: {error}", file=sys.stderr)
        return 1
    told = f"{source.form}, {source.config.family}, {parameters(source):,} parameters"
    print(f"{options.source} ({told}) -> {target}")
    if source.extras is not None and (source.extras.unread or source.extras.fresh):
        print(f"unread: {list(source.extras.unread)}; freshly initialised: {list(source.extras.fresh)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
