"""Wrong inputs by name: what lies there, the command, what the one line it is refused with must say.

The tests and the table in benchmarks/results/bad_inputs.md are made of this one list.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers import broken
from tests.helpers.nets import FIVE, save_member, save_net, save_specialists
from tests.helpers.world import World

Arrange = Callable[[World], object]
ENSEMBLE = "ensemble -m {models} -i {images} -o out.csv "
INPUT = "ensemble -m {models} -o out.csv -i "
MODEL = "ensemble -i {images} -o out.csv -m "
FOREIGN = MODEL + "net.onnx --scale 1 "
LABELS = ENSEMBLE + "--labels "
PALETTE = "".join(f"{name},{10 * place},0,0\n" for place, name in enumerate("abcde"))
PLAN = "ensemble -i {images} -o out.csv --plan plan.toml"


def nothing(world: World) -> None:
    """Everything is in place already."""


def contract(**fields: object) -> str:
    return json.dumps({"schema": 1, "classes": list(FIVE), "input_layout": "NCHW", **fields})


def carries(text: str) -> Arrange:
    return lambda world: save_net(Path("net.onnx"), metadata=text)


def net(**options: object) -> Arrange:
    return lambda world: save_net(Path("net.onnx"), **options)  # type: ignore[arg-type]


def plan(text: str) -> Arrange:
    def write(world: World) -> None:
        save_member(Path("a.onnx"))
        save_member(Path("b.onnx"), 1)
        Path("plan.toml").write_text(text)

    return write


def images(change: Callable[[np.ndarray], np.ndarray]) -> Arrange:
    return lambda world: np.savez("x.npz", images=change(world.images))


def labels(change: Callable[[np.ndarray], np.ndarray]) -> Arrange:
    return lambda world: np.savez("y.npz", labels=change(world.labels))


def spoilt(value: float) -> Arrange:
    def write(world: World) -> None:
        pixels = world.images.astype(np.float64)
        pixels[4, 2, 2] = value
        np.savez("x.npz", images=pixels)

    return write


def poisoned(world: World) -> None:
    save_member(Path("poisoned.onnx"), poisoned=True)
    pixels = world.images.copy()
    pixels[5, 0, 0] = 255
    np.savez("x.npz", images=pixels)


TWO_MEMBERS = '[[members]]\nmodel = "a.onnx"\nweight = {w}\n[[members]]\nmodel = "b.onnx"\nweight = {w}\n'

# name: (what lies there, the command, what the one line must say)
CASES: dict[str, tuple[Arrange, str, list[str]]] = {
    # images
    "missing input": (nothing, INPUT + "nope.npz", ["nope.npz", "no such"]),
    "input name too long": (nothing, INPUT + "x" * 300 + ".npz", ["xxx.npz", "too long"]),
    "no input": (nothing, "ensemble -m {models}", ["--input"]),
    "glob for input": (nothing, INPUT + "'*.npz'", ["*.npz"]),
    "truncated npz": (broken.cut("{images}", "x.npz", 300), INPUT + "x.npz", ["x.npz", "damaged"]),
    "npz that is no zip": (broken.text("x.npz", "hello"), INPUT + "x.npz", ["x.npz", "not a zip"]),
    "npz of 0 bytes": (broken.text("x.npz", ""), INPUT + "x.npz", ["x.npz"]),
    "npy of 0 bytes": (broken.text("x.npy", ""), INPUT + "x.npy", ["x.npy"]),
    "npz without arrays": (lambda world: np.savez("x.npz"), INPUT + "x.npz", ["x.npz", "none"]),
    "npz with a password": (broken.locked_npz, INPUT + "x.npz", ["x.npz"]),
    "npz of damaged lzma": (broken.damaged_lzma, INPUT + "x.npz", ["x.npz", "damaged"]),
    "npy with a torn header": (broken.torn_header, INPUT + "x.npy", ["x.npy", "damaged"]),
    "npz whose header lies": (broken.lying_header, INPUT + "x.npz", ["x.npz:images", "declares"]),
    "wrong key": (nothing, INPUT + "{images}:pictures", ["'pictures'", "images (7, 8, 16)"]),
    "two arrays": (lambda w: np.savez("x.npz", a=w.images, b=w.images), INPUT + "x.npz", ["x.npz:KEY", "a (7", "b (7"]),
    "pickle in npz": (lambda w: np.savez("x.npz", images=np.array([{}])), INPUT + "x.npz", ["x.npz:images", "pickled"]),
    "pickle in npy": (lambda w: np.save("x.npy", np.array([{}]), allow_pickle=True), INPUT + "x.npy", ["pickled"]),
    "texts": (lambda w: np.save("x.npy", np.array(["a"])), INPUT + "x.npy", ["x.npy", "<U1"]),
    "complex": (images(lambda x: x.astype(complex)), INPUT + "x.npz", ["complex128"]),
    "zero images": (images(lambda x: x[:0]), INPUT + "x.npz", ["(0, 8, 16)"]),
    "one image without rows": (images(lambda x: x[0]), INPUT + "x.npz", ["(8, 16)"]),
    "four channels": (images(lambda x: np.stack([x] * 4, 1)), INPUT + "x.npz", ["4 channels", "takes 1", "--bands"]),
    "axes that stay open": (
        images(lambda x: np.zeros((7, 8, 16, 8), np.uint8)),
        INPUT + "x.npz",
        ["(7, 8, 16, 8)", "--image-layout NHWC or --image-layout NCHW"],
    ),
    "unknown axes": (images(lambda x: x), INPUT + "x.npz --image-layout NHCW", ["NHCW", "NCHW"]),
    "too many axes": (images(lambda x: x), INPUT + "x.npz --image-layout NCHW", ["NCHW", "(7, 8, 16)"]),
    "three channels for one": (images(lambda x: np.stack([x] * 3, 3)), INPUT + "x.npz", ["3 channels", "takes 1"]),
    "scaled images": (images(lambda x: x / 255), INPUT + "x.npz", ["0..255", "a.onnx"]),
    "NaN in an image": (spoilt(np.nan), INPUT + "x.npz", ["member a", "image 4"]),
    "infinity in an image": (spoilt(np.inf), INPUT + "x.npz", ["member a", "image 4"]),
    "beyond float32 in an image": (spoilt(1e300), INPUT + "x.npz", ["member a", "image 4"]),
    "nothing but NaN": (images(lambda x: x * np.nan), INPUT + "x.npz", ["member a", "images 0, 1"]),
    "unknown suffix of input": (broken.text("x.txt", "x"), INPUT + "x.txt", [".txt", ".npz"]),
    "folder named npz": (lambda w: Path("x.npz").mkdir(), INPUT + "x.npz", ["x.npz", "no images"]),
    "empty folder": (lambda w: Path("tiles").mkdir(), INPUT + "tiles", ["tiles", "no images"]),
    "mixed sizes": (broken.pictures(a=(8, 16), b=(4, 16)), INPUT + "tiles", ["tiles/b.png", "4x16", "8x16"]),
    "mixed channels": (broken.pictures(a=(8, 16), b=(8, 16, 3)), INPUT + "tiles", ["tiles/b.png", "3 channels"]),
    "mixed depths": (broken.mixed_depths, INPUT + "tiles", ["tiles/b.png", "uint16", "a.png", "uint8"]),
    "pattern that fits nothing": (nothing, INPUT + "'nope/*.png'", ["nope/*.png", "no images"]),
    "masks among the images": (
        broken.pictures(a=(8, 16)),
        "ensemble -m {models} -i tiles -o tiles/masks",
        ["tiles/masks", "--input"],
    ),
    "corrupt picture": (broken.corrupt_picture, INPUT + "tiles", ["tiles/b.png"]),
    "text as picture": (broken.text_as_picture, INPUT + "tiles", ["tiles/b.png"]),
    "one stem twice": (broken.one_stem_twice, INPUT + "tiles", ["tiles", "a.bmp", "a.png", "rename"]),
    "line break in a name": (broken.pictures(**{"a\nb": (8, 16)}), INPUT + "tiles", ["line break", "rename"]),
    # models
    "missing model": (nothing, MODEL + "nope.onnx", ["nope.onnx"]),
    "glob that fits nothing": (nothing, MODEL + "'nope/*.onnx'", ["nope/*.onnx"]),
    "folder without models": (lambda w: Path("empty").mkdir(), MODEL + "empty", ["empty"]),
    "no models": (nothing, "ensemble -i {images}", ["--models"]),
    "not an ONNX file": (broken.text("net.onnx", "hello"), MODEL + "net.onnx", ["net.onnx", "ONNX"]),
    "ONNX of 0 bytes": (broken.text("net.onnx", ""), MODEL + "net.onnx", ["net.onnx"]),
    "truncated ONNX": (broken.cut("{models}/a.onnx", "net.onnx", 200), MODEL + "net.onnx", ["net.onnx", "ONNX"]),
    "names that are not UTF-8": (broken.garbled_names, MODEL + "net.onnx", ["net.onnx"]),
    "wrong image size": (net(size=(9, 9), metadata=contract(size=[9, 9])), MODEL + "net.onnx", ["8x16", "9x9"]),
    "fixed size": (net(size=(4, 4)), FOREIGN, ["net.onnx", "8x16", "--fit resize", "--fit pad", "--tile 4x4"]),
    "scalar input": (broken.scalar_net, FOREIGN, ["net.onnx", "rank 0"]),
    "whole-number input": (broken.whole_number_net, FOREIGN, ["net.onnx", "int64"]),
    "two inputs": (broken.two_input_net, FOREIGN, ["net.onnx", "2 inputs"]),
    "graph against contract": (net(classes=3, metadata=contract()), MODEL + "net.onnx", ["promises 5", "has 3"]),
    "disagree on number": (
        lambda w: save_member(Path("net.onnx"), classes=FIVE[:3]),
        MODEL + "{models} -m net.onnx",
        ["a and net", "5 (", "3 ("],
    ),
    "disagree on names": (
        lambda w: save_member(Path("net.onnx"), classes=FIVE[::-1]),
        MODEL + "{models} -m net.onnx",
        ["a and net", "big rock, sand"],
    ),
    "disagree on ignored": (
        lambda w: save_member(Path("net.onnx"), promised={"ignored_class": 2}),
        MODEL + "{models} -m net.onnx",
        ["ignored class", "net class 2"],
    ),
    "set lacks a class": (
        lambda w: save_specialists(Path("set"), [0, 1, 2, 4]),
        MODEL + "set",
        ["set", "class 3 (sand)"],
    ),
    "class twice in a set": (broken.class_twice, MODEL + "set", ["class 1 twice"]),
    "NaN from a member": (poisoned, "ensemble -m poisoned.onnx -i x.npz -o out.csv", ["member poisoned", "image 5"]),
    # contracts
    "contract is no JSON": (carries("{"), MODEL + "net.onnx", ["net.onnx", "not JSON"]),
    "contract is a list": (carries("[]"), MODEL + "net.onnx", ["net.onnx", "list"]),
    "contract of tomorrow": (carries('{"schema": 2}'), MODEL + "net.onnx", ["schema 2", "upgrade"]),
    "contract without classes": (carries('{"schema": 1}'), MODEL + "net.onnx", ["classes", "missing"]),
    "contract with a bell": (carries(contract(classes=["a\a", "b"])), MODEL + "net.onnx", [r"a\x07"]),
    "contract with twins": (carries(contract(classes=["a", "a"])), MODEL + "net.onnx", ["'a'", "twice"]),
    "contract with NaN": (carries(contract(notes={"x": float("nan")})), MODEL + "net.onnx", ["NaN"]),
    "contract with infinity": (carries(contract(notes={"x": 0}).replace("0}", "1e999}")), MODEL + "net.onnx", ["inf"]),
    # foreign models
    "no scale": (net(), MODEL + "net.onnx", ["net.onnx", "--scale"]),
    "unclear input layout": (net(channels=3, size=("H", 3)), FOREIGN, ["(N, 3, H, 3)", "--input-layout"]),
    "unclear activation": (net(end="sigmoid"), FOREIGN, ["--activation"]),
    "no such output": (net(two_outputs=True), FOREIGN + "--output-name zz", ["'zz'", "aux, out"]),
    "one map of shares": (net(classes=1, end="sigmoid"), FOREIGN, ["--activation probabilities"]),
    "one map, three classes": (net(classes=1), FOREIGN + "--classes a,b,c", ["3", "binary net has 2"]),
    "a constant for no input": (
        lambda w: (net()(w), Path("net.toml").write_text("constants = { gamma = 1 }")),
        FOREIGN,
        ["no input 'gamma'", "image"],
    ),
    "an output named twice": (
        net(two_outputs=True),
        FOREIGN + "--output-name out --output-name aux",
        ["--output-name out and aux", "net.onnx=logits"],
    ),
    "a name and numbers": (net(), FOREIGN + "--normalize imagenet", ["--normalize imagenet", "--scale"]),
    "number of class names": (net(), FOREIGN + "--classes a,b,c", ["3 classes", "5 maps"]),
    "nonsense layout": (net(), FOREIGN + "--input-layout chw", ["chw", "NCHW"]),
    "nonsense activation": (net(), FOREIGN + "--activation relu", ["relu", "logits"]),
    "two means for one channel": (net(), FOREIGN + "--mean 1,2", ["mean", "2 values", "1 channel"]),
    "means as words": (net(), FOREIGN + "--mean one", ["--mean", "one"]),
    "zero std": (net(), FOREIGN + "--std 0", ["std"]),
    "scale NaN": (net(), MODEL + "net.onnx --scale nan", ["scale", "nan"]),
    "scale that vanishes": (net(), MODEL + "net.onnx --scale 1e-60", ["scale", "1e-60"]),
    "ignored class outside": (net(), FOREIGN + "--ignored-class 9", ["ignored_class", "9", "0 to 4"]),
    "foreign size": (net(size=(9, 9)), FOREIGN, ["net.onnx", "9x9", "8x16"]),
    "foreign channels": (net(channels=3), FOREIGN, ["net.onnx", "--grey-as-rgb"]),
    # options
    "number of weights": (nothing, ENSEMBLE + "--weights 1,2", ["2 weights", "3 members"]),
    "negative weight": (nothing, ENSEMBLE + "--weights=-1,2,3", ["-1"]),
    "weight NaN": (nothing, ENSEMBLE + "--weights nan,1,1", ["nan"]),
    "weights all 0": (nothing, ENSEMBLE + "--weights 0,0,0", ["all 0"]),
    "weights as words": (nothing, ENSEMBLE + "--weights '1;2;3'", ["--weights", "1;2;3"]),
    "suppress beyond": (nothing, ENSEMBLE + "--suppress 9", ["9", "0 to 4"]),
    "suppress unknown": (nothing, ENSEMBLE + "--suppress cheese", ["'cheese'", "big rock"]),
    "suppress two signs": (nothing, ENSEMBLE + "--suppress=--3", ["'--3'"]),
    "suppress nothing": (nothing, ENSEMBLE + "--suppress ''", ["no class ''"]),
    "suppress all": (nothing, ENSEMBLE + "--suppress 0,1,2,3,4", ["all 5 classes"]),
    "suppress and not": (nothing, ENSEMBLE + "--suppress 0 --no-suppress", ["--suppress", "--no-suppress"]),
    "strategy": (nothing, ENSEMBLE + "--strategy nonsense", ["'nonsense'", "mean-logit"]),
    "vote stage": (nothing, ENSEMBLE + "--vote-stage never", ["'never'", "fused"]),
    "number of biases": (nothing, ENSEMBLE + "--bias 1,2", ["class bias", "2", "5 classes"]),
    "batch below 0": (nothing, ENSEMBLE + "--batch-size=-1", ["batch size -1"]),
    "unknown provider": (nothing, ENSEMBLE + "--provider rocm", ["'rocm'", "auto, cuda, tensorrt, cpu"]),
    "unknown runtime": (nothing, ENSEMBLE + "--runtime tvm", ["'tvm'", "auto, onnxruntime, openvino"]),
    "unknown precision": (nothing, ENSEMBLE + "--precision fp8", ["'fp8'", "float32, fp16, bf16, int8"]),
    "runtime and provider apart": (nothing, ENSEMBLE + "--runtime openvino --provider cuda", ["runs on the CPU"]),
    "workers below 0": (nothing, ENSEMBLE + "--workers=-1", ["workers -1"]),
    "limit below 0": (nothing, ENSEMBLE + "--limit=-1", ["--limit -1"]),
    # outputs
    "no such folder": (nothing, "ensemble -m {models} -i {images} -o no/out.csv", ["no such folder: no"]),
    "below a file": (nothing, "ensemble -m {models} -i {images} -o {images}/out.csv", ["images.npz", "folder"]),
    "output exists": (broken.text("out.csv", "mine"), ENSEMBLE, ["out.csv", "--overwrite"]),
    "output is the input": (images(lambda x: x), INPUT + "x.npz -o x.npz --overwrite", ["x.npz", "--input"]),
    "folder with other things": (
        lambda w: (Path("masks").mkdir(), Path("masks/notes.txt").write_text("mine")),
        "ensemble -m {models} -i {images} -o masks --overwrite",
        ["masks", "not replaced"],
    ),
    "output is this folder": (nothing, "ensemble -m {models} -i {images} -o . --overwrite", ["cannot write ."]),
    "unknown suffix": (nothing, "ensemble -m {models} -i {images} -o out.txt", [".txt", ".csv"]),
    "output name too long": (nothing, "ensemble -m {models} -i {images} -o " + "x" * 300 + ".csv", ["too long"]),
    "preview is no png": (nothing, ENSEMBLE + "--preview x.jpg", ["x.jpg", ".png"]),
    "preview is a folder": (lambda w: Path("x.png").mkdir(), ENSEMBLE + "--preview x.png --overwrite", ["x.png"]),
    # labels
    "labels of another shape": (labels(lambda y: y[:, :4]), LABELS + "y.npz", ["4x16", "8x16"]),
    "labels on their side": (labels(lambda y: y.transpose(0, 2, 1)), LABELS + "y.npz", ["16x8", "8x16"]),
    "too few labels": (labels(lambda y: y[:6]), LABELS + "y.npz", ["6 label maps", "7"]),
    "labels outside": (labels(lambda y: y + 3), LABELS + "y.npz", ["label map 0", "0 to 4"]),
    "labels between": (labels(lambda y: y + 0.5), LABELS + "y.npz", ["label map 0", ".5"]),
    "csv of ragged rows": (broken.ragged_csv, LABELS + "y.csv", ["y.csv line 3", "127", "128"]),
    "csv of words": (broken.csv_of("soil"), LABELS + "y.csv", ["y.csv line 2", "whole numbers"]),
    "csv of other ids": (
        broken.csv_of_others,
        "evaluate y.csv --labels z.csv",
        ["y.csv has no label map of k of z.csv", "a0, a1, a2"],
    ),
    "masks as JPEG": (broken.jpeg_truth, "evaluate truth --labels truth", ["truth/0.jpg is a JPEG", "PNG"]),
    "void that is a class": (nothing, LABELS + "{labels} --void 2", ["--void 2 is class 2 (bedrock)"]),
    "void among the ids": (nothing, LABELS + "{labels} --void 7 --label-ids 0,7,8,9,10", ["--void 7 is a class"]),
    "too few ids": (nothing, LABELS + "{labels} --label-ids 0,7", ["2 ids for 5 classes"]),
    "ids of words": (nothing, LABELS + "{labels} --label-ids soil,sand", ["--label-ids soil,sand", "0,7,11"]),
    "an id twice": (nothing, LABELS + "{labels} --label-ids 0,1,1,3,4", ["0,1,1,3,4", "twice"]),
    "ids that are not there": (
        nothing,
        LABELS + "{labels} --label-ids 0,7,8,9,10",
        ["none of --label-ids", "0, 1, 2, 3, 4"],
    ),
    "ids with a gap": (
        labels(lambda y: y * 3),
        LABELS + "y.npz",
        ["seen are 0, 3, 6, 9, 12", "--label-ids 0,3,6,9,12"],
    ),
    "0 and 255 alone": (labels(lambda y: (y > 2) * 255), LABELS + "y.npz", ["0 and 255 alone", "--label-ids 0,255"]),
    "missing palette": (nothing, LABELS + "{labels} --palette p.csv", ["--palette p.csv", "no such file"]),
    "palette of words": (
        broken.text("p.csv", "a,1,2,3\nb,1,2\n"),
        LABELS + "{labels} --palette p.csv",
        ["line 2", "b,1,2"],
    ),
    "palette for numbers": (broken.text("p.csv", PALETTE), LABELS + "{labels} --palette p.csv", ["--palette"]),
    "palette beside ids": (
        broken.text("p.csv", PALETTE),
        LABELS + "{labels} --palette p.csv --label-ids 0,1,2,3,4",
        ["--label-ids and --palette"],
    ),
    "csv without rows": (broken.csv_without_rows, LABELS + "y.csv", ["y.csv", "no rows"]),
    "csv of 0 bytes": (broken.text("y.csv", ""), LABELS + "y.csv", ["y.csv", "id,0,1,2"]),
    "csv that is a folder": (lambda w: Path("y.csv").mkdir(), LABELS + "y.csv", ["y.csv"]),
    # evaluate
    "ignored class of none": (nothing, "evaluate {labels} --labels {labels} --classes 5 --ignored-class 7", ["7"]),
    "ignored class of 5000 digits": (nothing, "evaluate {labels} --labels {labels} --ignored-class " + "9" * 5000, []),
    "a billion classes": (nothing, "evaluate {labels} --labels {labels} --classes 1000000000", ["2 to 256"]),
    "prediction outside": (nothing, "evaluate {labels} --labels {labels} --classes 3", ["0 to 2"]),
    # plans
    "missing plan": (nothing, PLAN, ["plan.toml"]),
    "plan is no TOML": (plan("strategy ="), PLAN, ["plan.toml", "TOML"]),
    "plan of no text": (lambda w: Path("plan.toml").write_bytes(b"\xff\xfe"), PLAN, ["plan.toml"]),
    "unknown key": (plan('colour = 1\n[[members]]\nmodel = "a.onnx"'), PLAN, ["'colour'", "strategy"]),
    "wrong type": (plan('strategy = 1\n[[members]]\nmodel = "a.onnx"'), PLAN, ["strategy: 1"]),
    "plan without members": (plan(""), PLAN, ["[[members]]"]),
    "plan without model": (plan("[[members]]\nweight = 1"), PLAN, ['model = "file.onnx"']),
    "plan of a missing model": (plan('[[members]]\nmodel = "nope.onnx"'), PLAN, ["nope.onnx"]),
    "plan of zeros": (plan(TWO_MEMBERS.format(w=0)), PLAN, ["all 0"]),
    "plan of negatives": (plan(TWO_MEMBERS.format(w=-1)), PLAN, ["-1"]),
    "plan of giants": (plan(TWO_MEMBERS.format(w="1" + "0" * 400)), PLAN, ["weight", "64 bits"]),
    "plan and models": (plan('[[members]]\nmodel = "a.onnx"'), PLAN + " -m a.onnx", ["--plan", "--models"]),
    "plan with a false field": (
        plan('[[members]]\nmodel = "a.onnx"\n[members.contract]\ncolour = 1'),
        PLAN,
        ["'colour'", "plan.toml"],
    ),
}


def words(command: str, world: World) -> list[str]:
    places = {"models": world.models, "images": world.images_file, "labels": world.labels_file}
    return [word.format(**places) for word in shlex.split(command)]
