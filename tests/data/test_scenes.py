"""Splits that share neither a scan nor a pixel, and digits drawn in the size and place asked for."""

from __future__ import annotations

import numpy as np
import pytest

from repvgg_mm.data.scenes import MIN_VISIBLE, STROKE, draw_ink, draw_scene, load_material, split_samples

pytest.importorskip("sklearn")


class TestSplit:
    def test_samples_are_disjoint_and_all_used(self) -> None:
        from sklearn.datasets import load_digits

        targets = load_digits().target
        train, val = split_samples(targets)
        assert not set(train) & set(val)
        assert sorted([*train, *val]) == list(range(1797))
        for digit in range(10):
            share = np.sum(targets[val] == digit) / np.sum(targets == digit)
            assert 0.18 < share <= 0.2

    def test_material_shares_no_scan(self) -> None:
        train, val = load_material("train"), load_material("val")
        scans = [{scan.tobytes() for digit in material.scans for scan in digit} for material in (train, val)]
        assert len(scans[0]) + len(scans[1]) == 1797
        assert not scans[0] & scans[1]

    def test_material_is_scikit_learns(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for split, indices in zip(("train", "val"), split_samples(digits.target), strict=True):
            for digit, scans in enumerate(load_material(split).scans):
                expected = digits.images[indices[digits.target[indices] == digit]]
                np.testing.assert_array_equal(scans * 16, expected)

    def test_photos_are_cut_in_two(self) -> None:
        from sklearn.datasets import load_sample_images

        train, val = load_material("train").photos, load_material("val").photos
        for photo, right, left in zip(load_sample_images().images, train, val, strict=True):
            np.testing.assert_array_equal(np.concatenate([np.asarray(left), np.asarray(right)], axis=1), photo)
            assert left.width < right.width


class TestDrawing:
    @pytest.mark.parametrize("size", [8, 33, 90])
    def test_ink_has_the_size_asked_for(self, size: int) -> None:
        rng = np.random.default_rng(0)
        for scans in load_material("val").scans:
            ink = draw_ink(scans[0], size, rng)
            assert max(ink.shape) == size
            strokes = ink >= STROKE
            assert 0.1 < strokes.mean() < 0.9
            rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
            assert max(np.ptp(rows), np.ptp(columns)) + 1 >= 0.85 * size  # trimmed to the strokes

    def test_later_digits_hide_little(self) -> None:
        material = load_material("train")
        hidden = 0
        for seed in range(20):
            kwargs = {"shape": (96, 120), "sizes": (30, 40)}
            digits = (1, 4, 7, 9)
            scene = draw_scene(material, digits, **kwargs, rng=np.random.default_rng(seed))
            # The same draws up to the first digit: what it looks like before the others come.
            alone = draw_scene(material, digits[:1], **kwargs, rng=np.random.default_rng(seed))
            before, after = np.sum(alone.instances == 1), np.sum(scene.instances == 1)
            assert MIN_VISIBLE * before <= after <= before
            hidden += int(after < before)
        assert hidden > 0  # overlap does happen

    def test_digit_without_a_place_is_left_out(self) -> None:
        scene = draw_scene(load_material("val"), (8,) * 9, (40, 40), (40, 40), np.random.default_rng(0))
        assert 1 <= len(scene.digits) < 9
        assert scene.instances.max() == len(scene.digits)
