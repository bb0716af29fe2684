"""The cells of the notebook run as they stand on the page, but for what takes long, and print what it says."""

import re

import keras
import matplotlib.pyplot as plt

from docs.render import code
from tests.helpers.shortened import shortened

CELLS = code("docs/notebook.md", "{code-cell}")
# What takes long on the page, and what stands for it here.
SHORTER = {
    "epochs=8": "epochs=3",
    '"steps": 20': '"steps": 5',
    '"queries": 200': '"queries": 5',
    '    "loss_rises_with_epsilon",\n    "step_count_saturates",\n    "gradient_free_is_not_stronger",\n': "",
}


def test_the_cells_do_what_the_page_says(tmp_path, monkeypatch, capsys):
    cells = shortened("\n".join(CELLS), SHORTER)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    exec(compile(cells, "docs/notebook.md", "exec"), names)
    printed = capsys.readouterr().out

    assert len(list(tmp_path.glob("images/test/*/*.png"))) == 250 and "shape: (8, 8, 1) classes: 10" in printed
    assert len(re.findall(r"^epoch \d: ", printed, re.MULTILINE)) == 3
    left = re.findall(r"^ *(\w+): ([\d.]+)% left$", printed, re.MULTILINE)
    assert [name for name, _ in left] == ["clean", "fgsm", "pgd", "square"]
    shares = [float(share) for _, share in left]
    assert shares[0] > 50.0 and shares == sorted(shares, reverse=True)  # five times chance
    assert [result.name for result in names["judgement"].results] == names["checks"]
    assert names["judgement"].sentence.split()[0] in printed
    assert len(plt.get_fignums()) == 3
    plt.close("all")
    written = printed.splitlines()[-len(names["written"]) :]
    assert {"report.html", "results.json", "card.md"} <= set(written)
    assert sorted(path.name for path in (tmp_path / "judged").iterdir()) == written
    assert keras.saving.load_model(tmp_path / "network.keras").output_shape == (None, 10)
