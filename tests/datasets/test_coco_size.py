"""A file of val2014's size is read and planned within 60 s and 3 GB, on one core."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

IMAGES, ANNOTATIONS = 40_504, 291_875
"""Numbers of COCO val2014."""

READ = """
import json, resource, sys, time
from perturb_tutorial.datasets import first_images, read_coco_json
def peak():
    # ru_maxrss would count the process that started this one, too: Linux hands its peak over.
    try:
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start = time.process_time()  # of this process: others on the machine do not count
data = read_coco_json(sys.argv[1], sys.argv[2], check_files=False)
plan = first_images(data.images, 400)
print(json.dumps({
    "seconds": time.process_time() - start,
    "gigabytes": peak() / 1e9,
    "images": len(data.images),
    "annotations": sum(len(image.instances) for image in data.images),
    "problems": len(data.problems),
    "pairs": len(plan),
    "most": max(sum(pair.category == c for pair in plan) for c in list(data.categories)[:5]),
}))
"""


def generate(path: Path) -> None:
    """Annotations with val2014's numbers: some 30 vertices each, with two decimals."""
    rng = random.Random(0)
    categories = [{"id": k, "name": f"category {k}"} for k in range(1, 81)]
    images = [
        {"id": k * 7, "file_name": f"COCO_{k:012d}.jpg", "height": 480, "width": 640} for k in range(IMAGES)
    ]
    polygons = [[round(rng.uniform(1, 470), 2) for _ in range(2 * rng.randint(8, 52))] for _ in range(2_000)]
    written = [json.dumps(polygon) for polygon in polygons]
    with path.open("w") as file:
        file.write('{"images": ' + json.dumps(images) + ', "categories": ' + json.dumps(categories))
        file.write(', "annotations": [')
        for key in range(ANNOTATIONS):
            record = {"area": 5000.25, "iscrowd": 0, "bbox": [1.5, 2.5, 300.25, 200.75], "id": key}
            record |= {"image_id": rng.randrange(IMAGES) * 7, "category_id": rng.randint(1, 80)}
            head = json.dumps(record)[:-1]
            file.write(f'{", " if key else ""}{head}, "segmentation": [{rng.choice(written)}]}}')
        file.write("]}")


@pytest.mark.slow
def test_a_file_of_val2014s_size_is_planned_in_a_minute_and_3_gb(tmp_path: Path) -> None:
    path = tmp_path / "instances_val2014.json"
    generate(path)
    # Its own process, so that the peak of memory is its own.
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(tmp_path)], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert (result["images"], result["annotations"], result["problems"]) == (IMAGES, ANNOTATIONS, 0)
    assert result["pairs"] == 80 * 400
    assert result["most"] == 400
    assert result["seconds"] < 60
    assert result["gigabytes"] < 3
