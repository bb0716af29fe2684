"""`benchmarks.pipeline`: what it reads, and what it concludes from its times."""

import json

import pytest

from benchmarks import pipeline


@pytest.mark.parametrize("fed, is_bottleneck", [(2.1, False), (2.3, True)])
def test_input_is_the_bottleneck_where_training_waits_for_it(fed, is_bottleneck, monkeypatch, tmp_path, capsys):
    def measure(splits, steps, rounds):
        assert splits.input_shape == (224, 224, 3) and splits.augmentation == "resized_crop"
        counts = {split: len(splits.labels(split)) for split in ("train", "validation", "test")}
        assert counts == {"train": 4, "validation": 2, "test": 2} and splits.num_classes == 2
        x, _ = next(iter(splits.train_from(0)))
        assert 0.05 < float(x.numpy().std()) < 0.5  # pictures, not one colour
        times = {
            "pipeline": [0.1] * 3,
            "training from memory": [2.0] * 3,
            "training from the pipeline": [1.9, fed, 9.9],
        }
        return times, {"at the end": 1}

    monkeypatch.setattr(pipeline, "measure", measure)
    out = tmp_path / "figures" / "pipeline.json"
    assert pipeline.command(["--classes=2", "--images_per_class=4", "--batch_size=2", f"--out={out}"]) == 0
    figures = json.loads(out.read_text())
    assert figures == json.loads(capsys.readouterr().out)
    assert figures["input_is_the_bottleneck"] is is_bottleneck
    assert figures["images_per_second"]["pipeline"] == pytest.approx(20) and figures["images"]["files"] == 8
