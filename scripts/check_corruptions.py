"""Our common corruptions beside those of PyPI's imagecorruptions 1.1.2 (elastic_transform: imagenet-c 0.0.3), on the same images.

Both packages have the parameters of ImageNet-C; here their functions run with those of CIFAR-10-C, which ours have: the list
that each function picks its severity from is replaced. Photographs of frost are read at a fifth of their size, and the middle
of snow that was zoomed is kept, as for CIFAR-10-C. Nothing else is changed.

    pip install imagecorruptions==1.1.2 imagenet-c==0.0.3 --no-deps
    pip install numpy scipy scikit-image opencv-python-headless pillow safetensors
    python scripts/check_corruptions.py

Where nothing is drawn, images must agree; motion blur must agree at the angle, out of 721, that agrees best. Elsewhere mean
and standard deviation of the change must agree. Ends with 1 where a kind does not. All values in levels of 255.
"""
import ast, inspect, pathlib, subprocess, sys, tempfile, types, warnings
import cv2, numpy as np, scipy.ndimage, skimage.data, skimage.filters
from PIL import Image
from safetensors.numpy import load_file

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 60
PARAMETERS = {
    "gaussian_noise": "[.04, .06, .08, .09, .10]",
    "shot_noise": "[500, 250, 100, 75, 50]",
    "impulse_noise": "[.01, .02, .03, .05, .07]",
    "defocus_blur": "[(.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)]",
    "glass_blur": "[(.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2)]",
    "motion_blur": "[(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]",
    "zoom_blur": "[np.arange(1, top, .01) for top in (1.06, 1.11, 1.16, 1.21, 1.26)]",
    "snow": "[(.1, .2, 1, .6, 8, 3, .95), (.1, .2, 1, .5, 10, 4, .9), (.15, .3, 1.75, .55, 10, 4, .9),"
            " (.25, .3, 2.25, .6, 12, 6, .85), (.3, .3, 1.25, .65, 14, 12, .8)]",
    "frost": "[(1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45)]",
    "fog": "[(.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75)]",
    "brightness": "[.05, .1, .15, .2, .3]",
    "contrast": "[.75, .5, .4, .3, .15]",
    "elastic_transform": "[(0, 0, 32 * .08), (32 * .05, 32 * .2, 32 * .07), (32 * .08, 32 * .06, 32 * .06),"
                         " (32 * .1, 32 * .04, 32 * .05), (32 * .1, 32 * .03, 32 * .03)]",
    "pixelate": "[.95, .9, .85, .75, .65]",
    "jpeg_compression": "[80, 65, 58, 50, 40]",
}
EXACT = {"defocus_blur": 1, "zoom_blur": 1, "brightness": 1, "contrast": 1, "pixelate": 1, "motion_blur": 1, "jpeg_compression": 1}
# Of mean and deviation of the change, at each severity: in levels, plus this share of the peer's deviation.
DRAWN = {"frost": (3, .2)}


def module(name, more):
    """What a module's name stands for, for packages that want what is not here: removed from SciPy, setuptools, or not used."""
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(more)
    return made


def peers():
    """Kind to function of (image, severity)."""
    warnings.simplefilter("ignore")
    np.float_ = np.float64
    module("scipy.ndimage.interpolation", {"map_coordinates": scipy.ndimage.map_coordinates})
    folder = pathlib.Path(next(p for p in sys.path if (pathlib.Path(p) / "imagecorruptions").exists())) / "imagecorruptions"
    module("pkg_resources", {"resource_filename": lambda _, path: str(folder / path)})
    for name in ("wand", "wand.color"):
        module(name, {})
    module("wand.image", {"Image": object})
    module("wand.api", {"library": types.SimpleNamespace(MagickMotionBlurImage=types.SimpleNamespace())})
    sys.modules["wand"].color = sys.modules["wand.color"]
    import imagecorruptions.corruptions as most
    import imagenet_c.corruptions as elastic

    def gaussian(image, sigma, multichannel=False, **rest):
        return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **rest)

    fifth = lambda path: cv2.resize(cv2.imread(path), (0, 0), fx=.2, fy=.2)
    small = types.SimpleNamespace(**{**vars(cv2), "imread": fifth})

    def zoomed(image, factor):
        made, (height, width) = most.clipped_zoom(image, factor), image.shape[:2]
        y, x = (made.shape[0] - height) // 2, (made.shape[1] - width) // 2
        return made[y:y + height, x:x + width]

    functions = {}
    for name, parameters in PARAMETERS.items():
        source = elastic if name == "elastic_transform" else most
        tree = ast.parse(inspect.getsource(getattr(source, name)))
        chosen = [n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "c"]
        chosen[0].value = ast.parse(f"({parameters})[severity - 1]", mode="eval").body
        space = {**vars(source), "gaussian": gaussian, "cv2": small, "clipped_zoom": zoomed}
        exec(compile(ast.fix_missing_locations(tree), name, "exec"), space)
        functions[name] = space[name]
    functions["_motion_blur"] = most._motion_blur
    return functions


def photographs(folder):
    """32 × 32 pixels of photographs, gray ones as colour ones: a data set of two classes."""
    rng, count = np.random.default_rng(0), 0
    for split in ("train", "test"):
        for kind in ("a", "b"):
            (folder / split / kind).mkdir(parents=True)
    names = ["astronaut", "chelsea", "coffee", "camera", "rocket"]
    while count < COUNT + 2:
        photo = getattr(skimage.data, names[count % len(names)])()
        photo = np.repeat(photo[..., None], 3, 2) if photo.ndim == 2 else photo
        side = rng.integers(64, min(photo.shape[:2]))
        y, x = (rng.integers(0, full - side) for full in photo.shape[:2])
        crop = Image.fromarray(photo[y:y + side, x:x + side]).resize((32, 32), Image.BOX)
        place = "train" if count < 2 else "test"
        crop.save(folder / place / "ab"[count % 2] / f"{count:04}.png")
        count += 1


def compare(kind, ours, clean, functions):
    """Lines of a table and whether all is well."""
    fine = True
    for severity in range(1, 6):
        own = ours[f"{kind}/{severity}"].transpose(0, 2, 3, 1)
        def ask(image):
            made = functions[kind](Image.fromarray(image), severity)
            return np.uint8(np.array(made))
        theirs = np.stack([ask(image) for image in clean])
        if kind == "motion_blur":
            radius, sigma = ast.literal_eval(PARAMETERS[kind])[severity - 1]
            for i, image in enumerate(clean):
                tries = (np.uint8(np.clip(functions["_motion_blur"](image, radius, sigma, angle), 0, 255)) for angle in np.linspace(-45, 45, 721))
                theirs[i] = min(tries, key=lambda made: np.abs(made.astype(float) - own[i]).sum())
        off = np.abs(own.astype(float) - theirs).mean()
        changes = [made.astype(float) - clean for made in (own, theirs)]
        means, spreads = [c.mean() for c in changes], [c.std() for c in changes]
        alike = np.corrcoef(changes[0].ravel(), changes[1].ravel())[0, 1]
        if kind in EXACT:
            good = off <= EXACT[kind]
        else:
            levels, share = DRAWN.get(kind, (1, .1))
            within = levels + share * spreads[1]
            good = abs(means[0] - means[1]) <= within and abs(spreads[0] - spreads[1]) <= within
        fine &= good
        print(f"{kind:18} {severity}  {means[0]:7.2f} {means[1]:7.2f}  {spreads[0]:6.2f} {spreads[1]:6.2f}  {off:6.2f} {alike:6.3f}  {'ok' if good else 'DIFFERS'}")
    return fine


def main():
    np.random.seed(0)
    functions = peers()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        photographs(folder / "data")
        made = folder / "ours.safetensors"
        command = ["cargo", "run", "--release", "--quiet", "--example", "corrupt", "--", str(folder / "data"), str(COUNT), "0", str(made)]
        subprocess.run(command, check=True)
        ours = load_file(made)
    clean = ours["clean"].transpose(0, 2, 3, 1)
    print(f"{len(clean)} images, 32 x 32, colour; ours and theirs; correlation of the changes\n")
    print(f"{'kind':18} s  {'mean change':>15}  {'deviation':>13}  {'apart':>6} {'corr.':>6}")
    wrong = [kind for kind in PARAMETERS if not compare(kind, ours, clean, functions)]
    print("\nall agree" if not wrong else f"\ndiffer: {', '.join(wrong)}")
    return 1 if wrong else 0


sys.exit(main())
