"""Our decoding of JPEG beside libjpeg's (Pillow), on images that are made here: smooth colours, hard edges and noise, in colour
and gray, at several qualities, subsamplings, baseline and progressive.

    pip install numpy pillow safetensors
    python scripts/check_jpeg.py

Prints the largest and the mean difference in levels of 255 for each kind; ends with 1 where one is above 4.
"""
import pathlib, subprocess, sys, tempfile
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

# Of halved colours in both directions; 3 of all others. libjpeg scales colours up by both directions at once, our decoder by one after the
# other, and rounds twice.
MOST = 4
SIDE = 96
rng = np.random.default_rng(0)


def image(number):
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.BICUBIC)).astype(int)
    if number % 3 == 1:  # edges: a box and stripes of other colours
        pixels[20:60, 30:70] = rng.integers(0, 256, 3)
        pixels[:, ::7] = rng.integers(0, 256, 3)
    if number % 3 == 2:
        pixels = pixels + rng.integers(-20, 21, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


worst = 0
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for mode, subsampling in [("RGB", "4:4:4"), ("RGB", "4:2:2"), ("RGB", "4:2:0"), ("L", None)]:
        for progressive in (False, True):
            for quality in (50, 75, 95):
                kind = f"{mode}-{str(subsampling).replace(':', '')}-{'progressive' if progressive else 'baseline'}-{quality}"
                expected = []
                for number in range(12):
                    for split in ("train", "test"):
                        path = folder / kind / split / "abcdef"[number % 2] / f"{number:03}.jpg"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        options = {"subsampling": subsampling} if subsampling else {}
                        image(number).convert(mode).save(path, quality=quality, progressive=progressive, **options)
                    expected.append((number % 2, number, np.asarray(Image.open(path).convert(mode))))
                expected = np.stack([pixels for *_, pixels in sorted(expected, key=lambda one: one[:2])])
                file = folder / f"{kind}.safetensors"
                command = ["cargo", "run", "--quiet", "--release", "--example", "corrupt", "--", folder / kind, "12", "0", file]
                subprocess.run(command, check=True)
                found = load_file(file)["clean"]
                expected = expected[:, None] if mode == "L" else expected.transpose(0, 3, 1, 2)
                difference = np.abs(found.astype(int) - expected.astype(int))
                worst = max(worst, difference.max())
                print(f"{kind:28} largest {difference.max()}  mean {difference.mean():.3f}  other than equal {100 * (difference > 0).mean():.1f} %, by more than 3 {100 * (difference > 3).mean():.4f} %")
print(f"largest difference: {worst} levels")
sys.exit(worst > MOST)
