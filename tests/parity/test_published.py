"""Presets against published sizes: counts of the released files, and transformers' own models, nothing allocated."""

import csv
from pathlib import Path

import pytest

from research.core import tree
from research.interop import config_from_hf, config_to_hf
from research.interop.hf_config import canonical
from research.models import PRESETS, build, preset

# Totals of the released safetensors files (model pages of the Hugging Face hub), tied weights counted once;
# BERT and RoBERTa with their MLM head.
RELEASED = {
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768,
    "qwen2-1.5b": 1_543_714_304,
    "qwen2-7b": 7_615_616_512,
    "qwen2-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "bloom-560m": 559_214_592,
    "bloom-1b1": 1_065_314_304,
    "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064,
    "bloom-176b": 176_247_271_424,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "flan-t5-small": 76_961_152,
    "flan-t5-base": 247_577_856,
    "flan-t5-large": 783_150_080,
    "flan-t5-xl": 2_849_757_184,
    "flan-t5-xxl": 11_135_332_352,
    "bart-base": 139_420_416,
    "bart-large": 406_291_456,
}
TABLE_NAMES = {"LLaMA-33B": "llama-30b", "Llama-3.2-3B (tied)": "llama3.2-3b"}
SMALLEST = [
    "bert-base",
    "roberta-base",
    "gpt2",
    "llama3.2-1b",
    "bloom-560m",
    "mistral-7b",
    "qwen2-0.5b",
    "qwen3-0.6b",
    "gemma2-2b",
    "gemma3-1b",
    "t5-small",
    "flan-t5-small",
    "bart-base",
]


def count(name: str) -> int:
    return tree.count(build(preset(name)).abstract())


@pytest.mark.parametrize("name", RELEASED)
def test_counts_equal_the_released_files(name: str) -> None:
    assert count(name) == RELEASED[name]


def test_counts_equal_the_tables_of_the_llama_papers(data_dir: Path) -> None:
    with (data_dir / "published_tables" / "llama_param_counts.csv").open() as file:
        rows = {row["model"]: int(row["params_exact_by_formula"]) for row in csv.DictReader(file)}
    assert len(rows) == 6
    ours = {name: count(TABLE_NAMES.get(name, name.lower())) for name in rows}
    assert ours == rows


def test_palm_counts_equal_the_table(data_dir: Path) -> None:
    with (data_dir / "published_tables" / "palm_table1.csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    for size, row in rows.items():
        weights = tree.paths(build(preset(f"palm-{size.lower()}")).abstract())
        # The table's figures, to the digits printed, are the matrices; the norms come on top (0.4 per mille at most).
        matrices = {path: weight for path, weight in weights.items() if not path.endswith("/scale")}
        assert tree.count(matrices) == int(row["formula_params"])
        assert tree.count(weights) / 1e9 == pytest.approx(float(row["published_params_B"]), rel=4e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("name", SMALLEST)
def test_counts_equal_a_model_that_transformers_builds_from_our_config(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    values = config_to_hf(preset(name))
    config = transformers.AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = getattr(transformers, values["architectures"][0])(config)
    theirs = sum(weight.numel() for weight in model.parameters())
    if name.startswith("flan"):  # transformers 5 builds every T5 tied and unties it when the file says so
        theirs += config.vocab_size * config.d_model
    assert theirs == count(name)


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("palm")])
def test_every_preset_survives_the_way_through_config_json(name: str) -> None:
    config = preset(name)
    back = config_from_hf(config_to_hf(config))
    assert canonical(back) == canonical(config)
