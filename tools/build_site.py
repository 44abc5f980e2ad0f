"""Build the documentation: the pages in docs/, and a tutorial for each example, into site/.

    python tools/build_site.py                           every warning is an error
    python tools/build_site.py --execute                 first run the examples that changed
    python tools/build_site.py --pictures concepts/x.md  run a page; its pictures go to docs/images

What an example printed and drew is kept in .cache/tutorials, under a hash of everything that it
depends on in this repository; without a run of just that its page says so.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CACHE = ROOT / ".cache" / "tutorials"
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name[0] != "_")
COMMITTED = {
    "quickstart": ["digits"],
    "composition": ["composition", "negation"],
    "jem": ["jem_digits", "jem_strips", "jem_energies"],
    "ladder": ["ladder_images", "ladder_chains"],
    "boltzmann": [
        f"boltzmann_{name}"
        for name in ("rbm_samples", "rbm_filters", "rbm_completed", "dbm_samples")
    ],
}
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


# --- pages that are written by hand


def snippets(page):
    """Pairs of a Python block and the text that it says it prints, or an empty one."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def pages():
    """Every page with snippets that run."""
    written = (page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "tutorials")
    return [page for page in written if snippets(page)]


def run_page(page, folder, end=""):
    """Run the snippets of a page one after another, in a folder where their pictures stay."""
    script = folder / "page.py"
    mark = f"\nprint({end!r})\n" if end else "\n"
    script.write_text("".join(code + mark for code, _ in snippets(page)), encoding="utf-8")
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def take_pictures(page):
    """Run a page and put the pictures that it saved where the page shows them from."""
    with tempfile.TemporaryDirectory() as folder:
        result = run_page(page, Path(folder))
        if result.returncode:
            sys.exit(f"{page}: {result.stderr}")
        from PIL import Image  # comes with Matplotlib

        for picture in Path(folder).glob("*.png"):
            saved = DOCS / "images" / picture.name
            Image.open(picture).convert("RGB").quantize(64).save(saved, optimize=True)
            print(f"docs/images/{saved.name}, {saved.stat().st_size / 1000:.0f} kB")


# --- pages of examples


def fingerprint(example):
    """A hash of an example, of what examples share, and of the library."""
    sources = [example, *(ROOT / "examples").glob("_*.py"), *(ROOT / "energia").rglob("*.py")]
    told = hashlib.sha256()
    for source in sorted(sources):
        told.update(str(source.relative_to(ROOT)).encode() + source.read_bytes())
    return told.hexdigest()


def stored(example):
    """What a run of this very example left behind: a dict, or None."""
    record = CACHE / example.stem / "run.json"
    run = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    return run if run.get("fingerprint") == fingerprint(example) else None


def execute(example):
    """Run an example with its defaults and keep what it printed and drew."""
    folder = CACHE / example.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"running {example.name}", flush=True)
    start = time.perf_counter()
    command = [sys.executable, str(example), "--out", "."]
    result = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{example.name} failed: its message stands above")
    run = {
        "fingerprint": fingerprint(example),
        "output": result.stdout,
        "seconds": round(time.perf_counter() - start),
        "cores": os.cpu_count(),
    }
    (folder / "run.json").write_text(json.dumps(run, indent=2), encoding="utf-8")


def tutorial(example, folder):
    """Write the page of an example and return its title."""
    source = example.read_text(encoding="utf-8")
    title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    name, run = example.stem, stored(example)
    printed = ""
    if run is None:
        drawn = [f"../images/{each}.png" for each in COMMITTED.get(name, [name])]
        drawn = [each for each in drawn if (folder / each).exists()]
        note = (
            "This site was built without running the script: `python3 run.py docs --execute` does."
        )
        note += " The pictures are of an earlier run." if drawn else ""
        text += f'\n\n!!! note "Not run"\n\n    {note}'
    else:
        shutil.copytree(CACHE / name, folder / name, ignore=shutil.ignore_patterns("*.json"))
        saved = sorted((folder / name).glob("*.png"), key=lambda path: path.stat().st_mtime)
        drawn = [f"{name}/{path.name}" for path in saved]
        printed = f"""## What it prints

In {run["seconds"]} seconds on {run["cores"]} cores:

```text
{run["output"].strip()}
```
"""
    pictures = "\n\n".join(f"![what it draws: {Path(each).stem}]({each})" for each in drawn)
    page = f"""# {title.rstrip(".")}

{text.strip(chr(10))}

{pictures}

{printed}
## The script

```py title="examples/{example.name}"
{source.strip()}
```
"""
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
    return title


def tutorials(folder):
    """Write a page for every example, and one that lists them."""
    folder.mkdir()
    rows = [f"| [`{e.name}`]({e.stem}.md) | {tutorial(e, folder)} |" for e in EXAMPLES]
    head = "# Tutorials\n\nEvery script of `examples/`: what it says, prints and draws, its source."
    table = "\n".join(["| script | what it does |", "|---|---|", *rows])
    (folder / "index.md").write_text(f"{head}\n\n{table}\n", encoding="utf-8")


# --- the site


def build(folder):
    """Build the site in a new folder, from copies of all that it is made of, and return its path.

    Raises `subprocess.CalledProcessError` with the output where anything is wrong.
    """
    shutil.copytree(DOCS, folder / "docs")
    tutorials(folder / "docs" / "tutorials")
    shutil.copy(ROOT / "mkdocs.yml", folder)  # Zensical works where this file is
    for name in ("energia", "tools", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    paths = os.pathsep.join(["tools", str(ROOT)])
    variables = {**os.environ, "PYTHONPATH": paths, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    subprocess.run(command, cwd=folder, env=variables, check=True, **output)
    return folder / "site"


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--execute", action="store_true", help="run the examples that changed")
    parser.add_argument("--pictures", nargs="+", default=[], metavar="PAGE", help="below docs/")
    options = parser.parse_args()
    for page in options.pictures:
        take_pictures(DOCS / page)
    for example in EXAMPLES if options.execute else []:
        if stored(example) is None:
            execute(example)
    with tempfile.TemporaryDirectory() as folder:
        try:
            site = build(Path(folder))
        except subprocess.CalledProcessError as error:
            sys.exit(error.stdout)
        shutil.rmtree(ROOT / "site", ignore_errors=True)
        shutil.move(site, ROOT / "site")
    print("the documentation is in site/: open site/index.html, or serve it for its search with")
    print("python -m http.server --directory site")


if __name__ == "__main__":
    main()
