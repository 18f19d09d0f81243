import pytest

from research.data.files import documents, find_files, read_examples, read_jsonl, read_text


def test_jsonl_errors_name_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n\n{"text": "é\\u2028y"}\n', encoding="utf-8")
    assert [e["text"] for e in read_jsonl(path)] == ["x", "é\u2028y"]
    for content, match in [
        ('{"text": 1}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("[1]\n", "line 1: expected an object, got list"),
        ("\n \n", "is empty"),
        ("", "is empty"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=match):
            list(read_jsonl(path))
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(ValueError, match="line 1"):
        list(read_jsonl(path))


def test_json_lists(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"a": 2}]')
    assert list(read_examples(path)) == [{"a": 1}, {"a": 2}]
    for content in ("[]", "{}", "[1]", "nonsense"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"a\.json"):
            list(read_examples(path))


def test_documents_and_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("# b")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "c.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (tmp_path / "d.bin").write_bytes(b"\0")
    files = find_files([tmp_path])
    assert [f.name for f in files] == ["a.txt", "c.jsonl", "b.md"]
    assert [list(documents(f, "body")) for f in files] == [["text"], ["one", "two"], ["# b"]]
    with pytest.raises(ValueError, match=r"object 1: no text column 'text'; it has \['body'\]"):
        list(documents(files[1]))
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        find_files([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file"):
        find_files([tmp_path / "empty"])
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"a\.txt is empty"):
        read_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match="byte 2"):
        read_text(tmp_path / "a.txt")
