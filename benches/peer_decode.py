"""Decodes a folder of JPEG or PNG images with Pillow or torchvision, in as many processes as there are cores, and prints images a second.

    python3 -m venv venv && venv/bin/pip install pillow torchvision numpy
    venv/bin/python benches/peer_decode.py pillow my-images [64]        # scaled to 64 × 64 where a size is given
"""

import os
import sys
import time
from multiprocessing import Pool

library, folder, *size = sys.argv[1:]
size = [int(s) for s in size]

if library == "pillow":
    import numpy
    from PIL import Image

    def decode(path):
        image = Image.open(path).convert("RGB")
        if size:
            image = image.resize((size[0], size[0]), Image.BILINEAR)
        return numpy.asarray(image).nbytes
else:
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2.functional import resize

    torch.set_num_threads(1)

    def decode(path):
        image = decode_image(path, mode=ImageReadMode.RGB)
        if size:
            image = resize(image, [size[0], size[0]], antialias=True)
        return image.numel()


if __name__ == "__main__":
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    with Pool(os.cpu_count()) as pool:
        pool.map(decode, paths[:200])  # the processes have begun, and imported what they need
        start = time.time()
        total = sum(pool.imap_unordered(decode, paths, chunksize=64))
        seconds = time.time() - start
    print(f"{library}: {len(paths)} images, {total} bytes, {seconds:.2f} s, {len(paths) / seconds:.0f} images/s")
