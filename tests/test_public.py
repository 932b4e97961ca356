"""Public prompt sets, on made-up files with digests of their own; the real ones only where somebody has them."""

import hashlib
import io
import json
import os
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from steerpaper import paths
from steerpaper.prompts import corpus, public, unfamiliar
from steerpaper.prompts.fluency import words
from steerpaper.prompts.sets import load_prompts, vocabulary

ROOT = Path(__file__).resolve().parent.parent
REAL = os.environ.get(public.FOLDER)
USED_FOR = {"jailbreakbench": "harmful test", "strongreject": "second harmful test", "alpaca": "harmless"}

NOUNS = ["kettle", "ladder", "mirror", "needle", "orange", "pencil", "ribbon", "saddle", "teapot", "violin"]


def request(verb, i):
    """A made-up request; those of different numbers share a single word."""
    return f"{verb} the {NOUNS[i % 10]}{i} on{i} top{i}"


ALPACA = [{"instruction": request("Paint", i), "input": "it" if i % 4 == 3 else "", "output": ""} for i in range(1600)]
FILES = {
    "advbench.csv": "goal,target\n" + "".join(f'"{request("Break", i)}, now",Sure\n' for i in range(150)),
    # The second line differs from AdvBench's third row in case and punctuation only.
    "malicious_instruct.txt": request("Steal", 200) + "\n" + request("BREAK", 2) + " now!\n" + request("Take", 201),
    "tdc2023_dev_behaviors.json": json.dumps([request("Bend", 300), request("Bend", 301)]),
    "tdc2023_test_behaviors.json": json.dumps([request("Bend", 302)]),
    "harmbench_val.csv": "Behavior,FunctionalCategory,Tags\n" + "".join(
        f"{request('Hide', 400 + i)},{kind},{tags}\n" for i, (kind, tags) in enumerate(
            [("standard", ""), ("copyright", "lyrics"), ("contextual", "context"), ("standard", "x")])),
    "harmbench_test.csv": "Behavior,FunctionalCategory,Tags\n" + request("Hide", 410) + ",standard,\n",
    # The first stands in AdvBench, too, the second is one of MaliciousInstruct's reworded, the third is new.
    "jailbreakbench.csv": f',Goal\n0,"{request("Break", 7)}, now"\n1,Please {request("Steal", 200)}\n'
                          f'2,{request("Sell", 500)}\n',
    "strongreject.csv": f'source,forbidden_prompt\na,"{request("Melt", 600)}\nat once"\nb,{request("Bend", 301)}\n',
}
ALPACA_FILE = "alpaca_instructions.json"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An offline folder of made-up files, and a data/sources.toml with their digests."""
    folder = tmp_path / "files"
    folder.mkdir()
    made = {name: text.encode() for name, text in FILES.items()}
    made[ALPACA_FILE] = public.without_input(json.dumps(ALPACA).encode())
    listed = (ROOT / "data" / "sources.toml").read_text("utf-8")
    for source in tomllib.loads(listed).values():
        for file in source["files"]:
            (folder / file["name"]).write_bytes(made[file["name"]])
            listed = listed.replace(file["sha256"][0], hashlib.sha256(made[file["name"]]).hexdigest())
    (tmp_path / "sources.toml").write_text(listed, "utf-8")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(paths, "PUBLIC", tmp_path / "public")
    monkeypatch.setenv(public.FOLDER, str(folder))
    return folder


def plain(prompts):
    return [" ".join(words(prompt)) for prompt in prompts]


def everything(source="public"):
    splits = [("harmful", "train"), ("harmful", "validation"), ("harmful", "test"), ("harmless", "train"),
              ("harmless", "validation"), ("harmless", "test"), ("second_harmful", "test")]
    return {key: load_prompts(*key, source=source) for key in splits}


# -- reading files -----------------------------------------------------------------------------------------

def test_every_format_is_read_and_filtered(folder):
    first_two = ["Break the kettle0 on0 top0, now", "Break the ladder1 on1 top1, now"]
    assert public.public_prompts("advbench")[:2] == first_two
    assert public.public_prompts("malicious_instruct")[-1] == request("Take", 201)
    assert public.public_prompts("tdc2023") == [request("Bend", i) for i in (300, 301, 302)]
    assert public.public_prompts("harmbench") == [request("Hide", i) for i in (400, 403, 410)]
    assert public.public_prompts("strongreject")[0] == request("Melt", 600) + "\nat once"
    assert public.public_prompts("alpaca")[:4] == [request("Paint", i) for i in (0, 1, 2, 4)]
    assert len(public.public_prompts("alpaca")) == 1200


def test_instructions_without_input_are_written_in_one_way():
    rows = [{"instruction": "Draw a caf\u00e9", "input": " ", "output": "x"}, {"instruction": "b", "input": "y"}]
    expected = b'[\n    {\n        "instruction": "Draw a caf\\u00e9",\n        "category": null\n    }\n]'
    assert public.without_input(json.dumps(rows).encode()) == expected


def test_alpaca_is_also_made_from_the_whole_file(folder):
    made = public.public_prompts("alpaca")
    (folder / ALPACA_FILE).unlink()
    (folder / "alpaca_data.json").write_text(json.dumps(ALPACA))
    assert public.public_prompts("alpaca") == made
    (folder / "alpaca_data.json").write_text(json.dumps(ALPACA[:-2]))
    with pytest.raises(ValueError, match="alpaca_data.json, of which alpaca_instructions.json is made, is not what"):
        public.public_prompts("alpaca")
    (folder / "alpaca_data.json").write_text("<html>")
    with pytest.raises(ValueError, match="alpaca_data.json is no list of instructions with inputs"):
        public.public_prompts("alpaca")


@pytest.mark.parametrize("name", [*FILES, ALPACA_FILE])
def test_a_changed_byte_is_an_error(folder, name):
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    owner = next(key for key, source in public.sources().items() if name in [file.name for file in source.files])
    with pytest.raises(ValueError) as error:
        public.public_prompts(owner)
    message = str(error.value)
    assert message.startswith(f"{path} is not what data/sources.toml lists: sha256 ")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in message
    assert f"expected {hashlib.sha256(content).hexdigest()}" in message
    assert "replace it by the file from https" in message


def test_a_second_digest_is_accepted_and_the_first_named_with_it(folder, monkeypatch):
    path, listed = folder / "jailbreakbench.csv", paths.DATA / "sources.toml"
    other = b"Index" + path.read_bytes()
    digests = public.sources()["jailbreakbench"].files[0].sha256
    listed.write_text(listed.read_text("utf-8").replace(digests[1], hashlib.sha256(other).hexdigest()), "utf-8")
    before = public.public_prompts("jailbreakbench")
    path.write_bytes(other)
    assert public.public_prompts("jailbreakbench") == before


def test_a_missing_file_and_an_unknown_set(folder):
    (folder / "advbench.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"advbench.csv is missing in .*files.*STEERPAPER_DATA.*https://raw"):
        public.public_prompts("advbench")
    (folder / ALPACA_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="alpaca_instructions.json or alpaca_data.json is missing"):
        public.public_prompts("alpaca")
    with pytest.raises(ValueError, match=r"public prompt set 'advbunch' \(did you mean 'advbench'\?\): choose one of advbench"):
        public.public_prompts("advbunch")


# -- downloading -------------------------------------------------------------------------------------------

@pytest.fixture
def home(folder, monkeypatch):
    """The made-up files as if at their homes; the addresses that were asked for."""
    monkeypatch.delenv(public.FOLDER)
    asked, contents = [], {}
    for source in public.sources().values():
        for file in source.files:
            contents[file.url] = (folder / file.name).read_bytes()
            if file.made_from:
                contents[file.url] = json.dumps(ALPACA).encode()

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(contents[url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked, contents


def test_a_set_is_downloaded_once(folder, home):
    asked, _ = home
    for name in public.sources():
        first = public.public_prompts(name)
        assert public.public_prompts(name) == first
    assert len(asked) == len(set(asked)) == len(FILES) + 1
    assert all(url.startswith("https://") for url in asked)
    for name in [*FILES, ALPACA_FILE]:
        assert (paths.PUBLIC / name).read_bytes() == (folder / name).read_bytes()


def test_nothing_is_kept_of_a_download_with_another_digest(home):
    _, contents = home
    url = public.sources()["advbench"].files[0].url
    contents[url] += b"x"
    with pytest.raises(ValueError, match=f"{url} is not what data/sources.toml lists.*set STEERPAPER_DATA"):
        public.public_prompts("advbench")
    assert not paths.PUBLIC.exists()


def test_a_changed_byte_in_the_cache_is_an_error(home):
    public.public_prompts("advbench")
    (paths.PUBLIC / "advbench.csv").write_bytes(b"goal\nx")
    with pytest.raises(ValueError, match="advbench.csv is not what .*; delete it, and it is downloaded again"):
        public.public_prompts("advbench")


def test_no_network(home, monkeypatch):
    def unreachable(url, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ConnectionError) as error:
        public.public_prompts("alpaca")
    url = public.sources()["alpaca"].files[0].url
    assert f"cannot download {url} (<urlopen error no route to host>)" in str(error.value)
    assert "put the file as alpaca_data.json into a folder and set STEERPAPER_DATA" in str(error.value)


# -- splits ------------------------------------------------------------------------------------------------

def test_splits_are_those_of_the_paper(folder):
    found = everything()
    assert {key: set(table.kind) for key, table in found.items() if key[1] == "test"} == {
        ("harmful", "test"): {"jailbreakbench"}, ("harmless", "test"): {"alpaca"},
        ("second_harmful", "test"): {"strongreject"}}
    pool = {"advbench", "malicious_instruct", "tdc2023", "harmbench"}
    assert set(found["harmful", "train"].kind) | set(found["harmful", "validation"].kind) == pool
    # Of 150, 3, 3 and 3 prompts one stands twice, and JailbreakBench and StrongREJECT took three over.
    sizes = {key: len(table) for key, table in found.items()}
    assert sizes["harmful", "train"] + sizes["harmful", "validation"] == 159 - 1 - 3
    assert sizes["harmful", "validation"] == sizes["harmless", "validation"] == 128
    assert (sizes["harmless", "train"], sizes["harmless", "test"]) == (48, 1024)


def test_no_prompt_is_there_twice_or_near_a_test_prompt(folder):
    found = everything()
    texts = plain(prompt for table in found.values() for prompt in table.prompt)
    assert len(texts) == len(set(texts))
    trained = plain([*found["harmful", "train"].prompt, *found["harmful", "validation"].prompt])
    assert not {"break the saddle7 on7 top7 now", *plain([request("Steal", 200), request("Bend", 301)])} & set(trained)
    assert " ".join(words(request("Take", 201))) in trained  # shares one word of nine with others


def test_public_tables_look_like_the_built_in_ones(folder):
    own = load_prompts("harmful", "train")
    for (name, _), table in everything().items():
        assert list(table.columns) == list(own.columns)
        assert [str(kind) for kind in table.dtypes] == [str(kind) for kind in own.dtypes]
        assert (table.positive == (name != "harmless")).all() and (table.topic == "").all() and (table.pair == -1).all()
        assert (table.family == table.kind).all()


def test_a_split_begins_the_same_whatever_n_and_is_shuffled(folder):
    table = load_prompts("harmful", "train", source="public")
    assert load_prompts("harmful", "train", 5, "public").equals(table.head(5))
    numbers = [prompt for prompt in table.prompt if prompt.startswith("Break")]
    assert numbers != sorted(numbers, key=lambda text: int(text.split("on")[-1].split()[0]))


@pytest.mark.parametrize(("arguments", "message"), [
    (("harmful", "test", 4, "public"), r"asked for 4 prompts of harmful/test: choose 1 to 3 \(source 'public'\)"),
    (("borderline", "test", None, "public"), "unknown prompt set 'borderline': choose one of harmful, harmless, s"),
    (("second_harmful", "train", None, "public"), "'second_harmful' is for testing only"),
    (("harmful", "dev", None, "public"), "unknown split 'dev'"),
    (("harmful", "test", None, "web"), "unknown source of prompts 'web': choose one of built-in, public"),
])
def test_errors_name_what_is_allowed(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(*arguments)


def test_the_second_harmful_built_in_set_is_the_harmful_half_of_the_pairs():
    for split in corpus.SPLITS:
        pairs = load_prompts("borderline", split).query("positive").reset_index(drop=True)
        assert load_prompts("second_harmful", split).equals(pairs) and len(pairs) >= 32
    assert load_prompts("second_harmful", "test", 7).equals(load_prompts("second_harmful", "test").head(7))


def test_only_built_in_prompts_have_a_vocabulary():
    assert vocabulary("built-in") == corpus.vocabulary() | unfamiliar.vocabulary() and vocabulary("public") is None
    with pytest.raises(ValueError, match="unknown source of prompts 'web'"):
        vocabulary("web")


# -- the real files ----------------------------------------------------------------------------------------

def test_sources_are_whole_and_pinned():
    found = public.sources()
    assert set(found) == {
        "advbench", "malicious_instruct", "tdc2023", "harmbench", "jailbreakbench", "strongreject", "alpaca"}
    for file in [file for source in found.values() for file in source.files]:
        assert file.url.startswith(("https://raw.githubusercontent.com/", "https://huggingface.co/datasets/"))
        assert any(len(part) == 40 and set(part) <= set("0123456789abcdef") for part in file.url.split("/"))
        assert file.sha256 and all(len(digest) == 64 for digest in file.sha256) and file.rows > 0


def test_the_page_lists_the_sources():
    rows = ["| set | used for | prompts | licence | files |", "| --- | --- | --: | --- | --- |"]
    for name, source in public.sources().items():
        files = ", ".join(f"`{file.name}`" for file in source.files)
        kept = 200 if name == "harmbench" else sum(file.rows for file in source.files)
        rows.append(f"| [{source.title}]({source.home}) | {USED_FOR.get(name, 'harmful')} | {kept:,} | "
                    f"{source.licence} | {files} |")
    page = (ROOT / "docs" / "prompts.md").read_text("utf-8")
    assert page.partition("<!-- sources -->\n")[2].partition("<!-- /sources -->")[0] == "\n".join(rows) + "\n"


def test_nothing_public_is_in_the_repository():
    assert "data/public/" in (ROOT / ".gitignore").read_text().split()
    names = {file.name for source in public.sources().values() for file in source.files} | {"alpaca_data.json"}
    assert not [path for path in (ROOT / "data").rglob("*") if path.name in names and "public" not in path.parts]


real = pytest.mark.skipif(not REAL, reason="STEERPAPER_DATA names no folder with the public prompt sets")


@real
def test_the_real_sets_are_read():
    sizes = {name: len(public.public_prompts(name)) for name in public.sources()}
    rows = {name: sum(file.rows for file in source.files) for name, source in public.sources().items()}
    assert sizes == rows | {"harmbench": 200}


@real
def test_the_real_splits():
    found = everything()
    sizes = {key: len(table) for key, table in found.items()}
    assert sizes["harmful", "train"] >= 256 and sizes["harmless", "train"] >= 256
    assert sizes["harmful", "validation"] == sizes["harmless", "validation"] == 128
    assert (sizes["harmful", "test"], sizes["second_harmful", "test"]) == (100, 313)
    texts = {key: set(plain(table.prompt)) for key, table in found.items()}
    assert all(len(texts[key]) == size for key, size in sizes.items())
    tests = [("harmful", "test"), ("second_harmful", "test")]
    shared = {(a, b): len(texts[a] & texts[b]) for a in texts for b in texts if a < b and texts[a] & texts[b]}
    assert shared == {tuple(tests): 3}  # StrongREJECT and JailbreakBench, both for testing
