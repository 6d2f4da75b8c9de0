"""Images per second and core from JPEG files to batches for a device, in Tandem beside torch's DataLoader and webdataset.

    python -m benchmarks.input --photos='data/flickr8k/images/*.jpg'     # needs requirements-parity.txt; webdataset if it is there

Every arm decodes the same photographs, cuts a random 90 to 100% of each and brings it to 224 x 224 with an antialiased bicubic kernel,
256 to a batch, on the same two cores, in turns. Tandem reads them from tar shards through its own pipeline and hands over bytes, which
the model normalises on the device; the peers do what open_clip does: Pillow, float32, normalised, in two worker processes. A second row
for the peers leaves normalising out. An arm is timed from its first batch on, when its buffers are as full as they will be.

The difference in pixels is that of the same boxes cut by Pillow. Faster modes are timed on one thread and judged by the same measure:
those that shrink while decoding on mosaics of 4 x 4 photographs, since the originals are not large.

Two cores of an AMD EPYC, 2026-11-21: 718 images/s and core in two threads (673 in two worker processes), 294 in a DataLoader, 255 in
webdataset; without normalising these two take 360 and 327. Of the 0.99 ms of a photograph on one thread (2.5 ms in Pillow), 0.44 go into
Huffman codes and the luma's DCT, 0.28 into colours, 0.28 into resampling, 0.06 into Pillow's look at the header, which alone holds the
interpreter's lock. What was tried for the resampling, at 1.4 ms in Pillow: `reducing_gap=1` saves a fifth and costs 1.0 of 255.
"""

import functools
import glob
import importlib.util
import io
import itertools
import pathlib
import resource
import tarfile
import tempfile
import time

import numpy as np
import simplejpeg
from absl import app, flags
from PIL import Image

from benchmarks import measure, peers
from configs import common
from input_pipeline import batching, decode, order, transforms
from input_pipeline import crop as crops

PHOTOS = flags.DEFINE_string("photos", None, "Pattern of JPEG files.", required=True)
BATCHES = flags.DEFINE_integer("batches", 16, "Batches of each arm in a round.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "Runs of each arm.")
CORES = 2
BATCH, SIDE = 256, 224
AREA, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
LONG = 500  # sides of the photographs that count
PER_SHARD = 60
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def photographs(pattern: str) -> list[bytes]:
    """The files whose longer side is `LONG` pixels."""
    files = [pathlib.Path(path).read_bytes() for path in sorted(glob.glob(pattern))]
    found = [data for data in files if max(Image.open(io.BytesIO(data)).size) == LONG]
    if not found:
        raise FileNotFoundError(f"no JPEG of {LONG} pixels matches {pattern}; set --photos to files of Flickr8k.")
    return found


def write_shards(folder: pathlib.Path, photos: list[bytes]) -> tuple[str, ...]:
    """Tar files as img2dataset writes them."""
    paths = []
    for shard, start in enumerate(range(0, len(photos), PER_SHARD)):
        paths.append(str(folder / f"{shard:05d}.tar"))
        with tarfile.open(paths[-1], "w") as file:
            for i, data in enumerate(photos[start : start + PER_SHARD], start):
                for name, content in ((f"{i:06d}.jpg", data), (f"{i:06d}.txt", b"a photograph")):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    return tuple(paths)


def tandem(shards: tuple[str, ...], threads: int, workers: int, seed: int = 0):
    """Batches of uint8 through the pipeline of a training run."""
    data = common.base().data
    data.global_batch, data.threads, data.workers = BATCH, threads, workers
    data.sources = dict(main=dict(name="webdataset", weight=1.0, options=dict(shards=shards)))
    data.tokenizer = dict(name="bpe", options=dict(vocab_size=300))
    data.transforms = dict(
        image=dict(name="random_crop", options=dict(height=SIDE, width=SIDE)), text=dict(name="tokenize", options=dict(length=8))
    )
    sources = batching.make_sources(data)
    return batching.batches(data, sources, batching.make_tokenizer(data, sources), seed=seed)


def prepare(normalise: bool, picture: Image.Image):
    """open_clip's training transform on Pillow and torch, as torchvision spells it out."""
    torch = peers.torch()
    rng = np.random.default_rng(torch.randint(2**31, ()).item())
    box = crops.random_box(picture.height, picture.width, rng, AREA, RATIO)
    picture = pillow(picture, box).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    if not normalise:
        return pixels
    return pixels.to(torch.float32).div(255).sub_(torch.tensor(MEAN).view(-1, 1, 1)).div_(torch.tensor(STD).view(-1, 1, 1))


def pillow(picture: Image.Image, box: crops.Box, side: int = SIDE) -> Image.Image:
    """A crop as torchvision makes it of a Pillow image."""
    picture = picture.crop((box.left, box.top, box.left + box.width, box.top + box.height))
    return picture.resize((side, side), Image.Resampling.BICUBIC)


class Files:
    """A torch data set of the files, each read and decoded when asked for."""

    def __init__(self, paths: list[str], normalise: bool):
        self._paths, self._normalise = paths, normalise

    def __len__(self) -> int:
        return BATCH * 1000

    def __getitem__(self, i: int):
        with open(self._paths[i % len(self._paths)], "rb") as file:
            return prepare(self._normalise, Image.open(file))


def data_loader(paths: list[str], normalise: bool):
    """torch's DataLoader with a worker for each core."""
    torch = peers.torch(1)
    return torch.utils.data.DataLoader(Files(paths, normalise), BATCH, shuffle=True, num_workers=CORES, drop_last=True)


def web_dataset(shards: tuple[str, ...], normalise: bool):
    """webdataset reading the same shards, with a worker for each core."""
    import webdataset

    peers.torch(1)
    stream = webdataset.WebDataset(list(shards), shardshuffle=len(shards), resampled=True, handler=webdataset.reraise_exception)
    stream = (
        stream.shuffle(200).decode("pil").to_tuple("jpg").map_tuple(functools.partial(prepare, normalise)).batched(BATCH, partial=False)
    )
    return webdataset.WebLoader(stream, batch_size=None, num_workers=CORES)


def rate(make) -> float:
    """Images per second after the first batch."""
    batches = make()
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    for _ in itertools.islice(iterator, BATCHES.value):
        pass
    found = BATCHES.value * BATCH / (time.perf_counter() - start)
    if hasattr(batches, "close"):
        batches.close()
    return found


def best(arms: dict) -> dict[str, float]:
    """The best rate of each arm over rounds in which they take turns."""
    found = {name: [] for name in arms}
    for _ in range(ROUNDS.value):
        for name, make in arms.items():
            found[name].append(rate(make))
    return {name: max(rates) for name, rates in found.items()}


def mosaics(photos: list[bytes], count: int = 8) -> list[bytes]:
    """JPEGs of 2000 x 1500 pixels with the detail of photographs: 4 x 4 of them side by side."""
    wide = [decode.pixels(data, 3)[:375] for data in photos]
    wide = [pixels for pixels in wide if pixels.shape == (375, LONG, 3)]
    made = []
    for i in range(count):
        tiles = [[wide[(16 * i + 4 * row + column) % len(wide)] for column in range(4)] for row in range(4)]
        file = io.BytesIO()
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in tiles])).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def modes(photos: list[bytes]) -> dict[str, dict[str, float]]:
    """Milliseconds a photograph on one thread, and the mean and greatest difference to Pillow in values of 255."""
    boxes = {}

    def box(data: bytes) -> crops.Box:
        if data not in boxes:
            file = decode.ImageFile(data)
            boxes[data] = crops.random_box(file.height, file.width, np.random.default_rng(len(boxes)), AREA, RATIO)
        return boxes[data]

    def ours(data: bytes, spare: float = 0.0) -> np.ndarray:
        return crops.cut(decode.ImageFile(data), box(data), SIDE, SIDE, 3, "bicubic", spare)

    def rough(data: bytes, **options) -> np.ndarray:
        return crops.resample(simplejpeg.decode_jpeg(data, **options), box(data), SIDE, SIDE, "bicubic")

    def theirs(data: bytes, gap: float | None = None) -> np.ndarray:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        cut = picture.crop((box(data).left, box(data).top, box(data).left + box(data).width, box(data).top + box(data).height))
        return np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=gap))

    small = {
        "Pillow": theirs,
        "Pillow, reducing_gap 1": functools.partial(theirs, gap=1.0),
        "Tandem": ours,
        "Tandem, fast upsampling of colours": functools.partial(rough, fastupsample=True),
        "Tandem, fast upsampling and fast DCT": functools.partial(rough, fastupsample=True, fastdct=True),
    }
    large = {"Pillow": theirs, "Tandem": ours} | {f"Tandem, spare {s:g}": functools.partial(ours, spare=s) for s in (2.0, 1.5, 1.0)}
    rows = {}
    for kind, data, arms in (("500 px", photos, small), ("2000 px", mosaics(photos), large)):
        exact = [theirs(item).astype(np.int16) for item in data]
        for name, arm in arms.items():
            errors = [np.abs(arm(item).astype(np.int16) - pixels) for item, pixels in zip(data, exact, strict=True)]
            times = measure.alternate({name: lambda arm=arm, data=data: [arm(item) for item in data]}, 2)[name]
            rows[f"{kind}: {name}"] = {
                "milliseconds": 1000 * times["processor_seconds"] / len(data),
                "mean_difference": float(np.mean([error.mean() for error in errors])),
                "greatest_difference": int(max(error.max() for error in errors)),
            }
    return rows


def profile(photos: list[bytes]) -> dict[str, float]:
    """Milliseconds of each part of a crop on one thread."""
    files = [decode.ImageFile(data) for data in photos]
    boxes = [crops.random_box(file.height, file.width, np.random.default_rng(i), AREA, RATIO) for i, file in enumerate(files)]
    arrays = [decode.pixels(data, 3) for data in photos]
    made = [crops.resample(array, box, SIDE, SIDE, "bicubic") for array, box in zip(arrays, boxes, strict=True)]
    key = order.Key(0, 1, 0)
    parts = {
        "header, by Pillow": lambda: [decode.ImageFile(data) for data in photos],
        "luma alone: Huffman codes, its DCT": lambda: [simplejpeg.decode_jpeg(data, "GRAY") for data in photos],
        "luma, colours, RGB": lambda: [simplejpeg.decode_jpeg(data, "RGB") for data in photos],
        "random stream and box": lambda: [crops.random_box(f.height, f.width, order.generator(0, key), AREA, RATIO) for f in files],
        "resample": lambda: [crops.resample(array, box, SIDE, SIDE, "bicubic") for array, box in zip(arrays, boxes, strict=True)],
        "stack": lambda: np.stack(made),
        "all": lambda: transforms.random_crop(photos, [order.generator(0, key) for _ in photos], None, height=SIDE, width=SIDE),
    }
    times = measure.alternate(parts, 3)
    return {name: 1000 * found["processor_seconds"] / len(photos) for name, found in times.items()}


def main(_):
    photos = photographs(PHOTOS.value)
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(pathlib.Path(folder), photos)
        paths = []
        for i, data in enumerate(photos):
            paths.append(f"{folder}/{i}.jpg")
            pathlib.Path(paths[-1]).write_bytes(data)
        arms = {
            "tandem, 2 threads": lambda: tandem(shards, CORES, 0),
            "tandem, 2 worker processes": lambda: tandem(shards, 1, CORES),
            "DataLoader": lambda: data_loader(paths, True),
            "DataLoader, bytes": lambda: data_loader(paths, False),
        }
        if importlib.util.find_spec("webdataset"):
            arms["webdataset"] = lambda: web_dataset(shards, True)
            arms["webdataset, bytes"] = lambda: web_dataset(shards, False)
        rates = {name: found / CORES for name, found in best(arms).items()}
    ours = max(rates["tandem, 2 threads"], rates["tandem, 2 worker processes"])
    peer = max((name for name in rates if not name.startswith("tandem") and "bytes" not in name), key=rates.get)
    result = {
        "question": f"Images per second and core, {len(photos)} JPEGs of {LONG} px to random crops of {SIDE}, batch {BATCH}?",
        "ratio": ours / rates[peer],
        "ours": ours,
        "peer": rates[peer],
        "peer_name": f"{peer} + Pillow, {CORES} worker processes, float32 and normalised",
        "unit": "images/s per core",
        "machine": measure.machine(),
        "images_per_second_and_core": rates,
        "modes": modes(photos),
        "milliseconds_of_parts": profile(photos),
        "greatest_resident_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    measure.save("input", result)


if __name__ == "__main__":
    app.run(main)
