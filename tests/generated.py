"""The files that are generated from the code. ``python -m tests.generated`` writes them; a test compares."""

from __future__ import annotations

import json
from pathlib import Path

from modelexport_passes.config.catalogue import describe_pass, markdown
from modelexport_passes.config.json_schema import json_schema
from modelexport_passes.registry import Registry

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- generated: python -m tests.generated -->"
END = "<!-- end of generated -->"


def generated() -> dict[Path, str]:
    """Path -> what it should hold."""
    readme = ROOT / "passes" / "README.md"
    _, _, rest = readme.read_text(encoding="utf-8").partition(END)
    passes = markdown([describe_pass(entry) for entry in Registry().entries() if entry.owner == "built-in"])
    return {
        readme: f"# Passes\n\n{BEGIN}\n\n## Built-in passes\n\n{passes}\n{END}{rest}",
        ROOT / "docs" / "pipeline.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
