"""llama2.c files: read, written back with the same bits, and the same model as in Hugging Face's order of rows."""

import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from research.core import tree
from research.interop import load_pretrained, save_pretrained
from research.interop.llama2c import load_llama2c, save_llama2c
from tests.interop.conftest import small

TABLE_BYTES = 2 * 512 * 4 * 4  # cosines and sines of stories260K's legacy file
LLAMA = {"n_heads": 4, "head_dim": 4, "n_kv_heads": 2, "vocab_size": 41}


def tiny(tied: bool):
    from research.ops.positions import Rope

    return small("llama", tied=tied, rope=Rope(), **LLAMA)


def test_v1_file_of_a_real_model_is_written_back_bit_by_bit(data_dir: Path, tmp_path: Path) -> None:
    original = data_dir / "stories260K" / "checkpoint_v1.bin"
    written = save_llama2c(tmp_path / "again.bin", *load_llama2c(original))
    assert written.read_bytes() == original.read_bytes()


def test_legacy_file_of_a_real_model_is_written_back_bit_by_bit(data_dir: Path, tmp_path: Path) -> None:
    original = (data_dir / "stories260K" / "checkpoint_legacy.bin").read_bytes()
    written = save_llama2c(
        tmp_path / "again.bin", *load_llama2c(data_dir / "stories260K" / "checkpoint_legacy.bin"), version=0
    ).read_bytes()
    # Every weight; the table of cosines at the end (which readers skip) is computed, so it may round otherwise.
    assert written[:-TABLE_BYTES] == original[:-TABLE_BYTES] and len(written) == len(original)
    tables = [np.frombuffer(data[-TABLE_BYTES:], "<f4") for data in (written, original)]
    np.testing.assert_allclose(*tables, atol=1e-7)


def test_both_versions_hold_the_same_model(data_dir: Path) -> None:
    old, new = (load_llama2c(data_dir / "stories260K" / f"checkpoint_{name}.bin") for name in ("legacy", "v1"))
    assert old[0] == new[0] and tree.count(old[1]) == 260_032
    for path, leaf in tree.paths(old[1]).items():
        np.testing.assert_array_equal(leaf, tree.paths(new[1])[path])


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_bit_equal(version: int, tied: bool, tmp_path: Path) -> None:
    config, params = tiny(tied)
    for number, form in enumerate((params, tree.cut(params, [1]), tree.unstack(params))):
        back, weights = load_llama2c(save_llama2c(tmp_path / f"{number}.bin", config, form, version=version))
        assert (back.tied, back.n_kv_heads, back.max_length) == (tied, 2, 20)
        assert jax.tree.structure(weights) == jax.tree.structure(params)
        for path, leaf in tree.paths(weights).items():
            np.testing.assert_array_equal(leaf, tree.paths(params)[path])


def test_by_way_of_a_hugging_face_folder(data_dir: Path, tmp_path: Path) -> None:
    original = data_dir / "stories260K" / "checkpoint_v1.bin"
    loaded = load_pretrained(save_pretrained(tmp_path / "hf", *load_llama2c(original)))
    assert save_llama2c(tmp_path / "x.bin", loaded.config, loaded.params).read_bytes() == original.read_bytes()


def test_what_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    config, params = small("mistral", **LLAMA)
    with pytest.raises(ValueError, match=r"llama2.c format cannot hold window = 4096 \(it has 0\)"):
        save_llama2c(tmp_path / "x.bin", config, params)
    with pytest.raises(ValueError, match="versions 0 and 1 are written; given 2"):
        save_llama2c(tmp_path / "x.bin", *tiny(True), version=2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = save_llama2c(tmp_path / "model.bin", *tiny(True))
    whole = path.read_bytes()
    for data, message in (
        (whole[:-4], r"bytes; its header Header\(dim=16.*calls for"),
        (whole[:10], "too short for a llama2.c checkpoint: 10 bytes"),
        (struct.pack("<Ii", 0x616B3432, 2) + whole[8:], "of version 2; versions 0 and 1 are read"),
        (b"PK\x03\x04" + bytes(60), "not a llama2.c checkpoint of version 0 or 1"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            load_llama2c(path)
    with pytest.raises(FileNotFoundError, match=r"no llama2.c checkpoint at .*absent.bin"):
        load_llama2c(tmp_path / "absent.bin")
