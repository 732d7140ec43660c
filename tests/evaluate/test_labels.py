"""Labels of a picture: over no dot and no other label, inside the frame, though dots crowd."""

from __future__ import annotations

import itertools

from llamacli.evaluate.labels import LETTER, RADIUS, Box, place_labels

FRAME = Box(0, 0, 600, 400)


def test_labels_of_a_crowd_hide_nothing() -> None:
    dots = [(300 + 9.0 * (k % 4), 200 + 7.0 * (k // 4)) for k in range(12)]
    labels = [(f"IQ{k}_XXS", x, y) for k, (x, y) in enumerate(dots)]
    legend = Box(450, 0, 600, 60)
    boxes = place_labels(labels, dots, FRAME, [legend])
    assert not any(a.meets(b) for a, b in itertools.combinations([*boxes, legend], 2))
    around = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in dots]
    assert not any(box.meets(dot) for box in boxes for dot in around)
    assert all(box.within(FRAME) for box in boxes)


def test_a_label_alone_stands_right_above_its_dot() -> None:
    [box] = place_labels([("Q4_K", 100, 100)], [(100, 100)], FRAME, [])
    assert box.left > 100 and box.bottom <= 100 and box.right - box.left == 4 * LETTER


def test_a_label_at_the_right_edge_goes_left() -> None:
    [box] = place_labels([("Q4_K_M", 590, 200)], [(590, 200)], FRAME, [])
    assert box.right < 590


def test_where_nothing_is_free_a_label_still_stands_at_its_dot() -> None:
    [box] = place_labels([("Q4_K_M", 300, 200)], [(300, 200)], FRAME, [FRAME])
    assert box.within(FRAME) and abs(box.left - 300) < 20
