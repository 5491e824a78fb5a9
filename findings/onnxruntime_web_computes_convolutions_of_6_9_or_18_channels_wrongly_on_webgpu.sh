#!/usr/bin/env bash
# One would guess: onnxruntime-web gives the same on WebGPU as in WebAssembly, up to float32 rounding.
#
# What happens: 3x3 convolutions of 6, 9 or 18 input channels come out as other numbers altogether, without an error or a
# warning. Those counts are multiples of 3 and not of 4, above 3. 5, 7, 8, 10 and 12 channels are right, and so are
# 1x1 convolutions. A U-Net of 6, 12, 24, ... filters then labels a third of its pixels otherwise. Seen on the WebGPU
# adapter that Chromium computes on the processor (SwiftShader); microsoft/onnxruntime issue 29651 reports a first
# convolution of 9 channels on a real one.
#
# Needs Chromium with its driver, and npm. Versions: onnxruntime-web 1.30.0, onnx 1.23.2, numpy 2.4.6, selenium 4.51.0,
# Chromium 150. Seen on 2026-11-28 (input channels, kernel, greatest difference where outputs are about 4):
#   5 k3 same, 6 k1 same, 6 k3 1.4, 7 k3 same, 8 k3 same, 9 k3 1.7, 10 k3 same, 12 k3 same, 18 k3 1.5
set -euo pipefail
for program in chromedriver npm; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install chromium chromium-driver npm"; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 numpy==2.4.6 selenium==4.51.0
cd "$work"
npm pack onnxruntime-web@1.30.0 --ignore-scripts --loglevel=error >/dev/null
tar -xzf onnxruntime-web-1.30.0.tgz
cat >package/index.html <<'HTML'
<!doctype html><script type="module">
import * as ort from "./dist/ort.webgpu.min.mjs";
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const told = [];
for (const name of ["5 k3", "6 k1", "6 k3", "7 k3", "8 k3", "9 k3", "10 k3", "12 k3", "18 k3"]) {
  const channels = parseInt(name), data = Float32Array.from({ length: channels * 32 * 64 }, Math.random), found = [];
  for (const provider of ["webgpu", "wasm"]) {
    const session = await ort.InferenceSession.create(`${name}.onnx`, { executionProviders: [provider] });
    const { y } = await session.run({ x: new ort.Tensor("float32", data.slice(), [1, channels, 32, 64]) });
    found.push(await y.getData());
  }
  const apart = found[0].reduce((most, value, at) => Math.max(most, Math.abs(value - found[1][at])), 0);
  told.push(`${name} ${apart < 1e-4 ? "same" : apart.toFixed(1)}`);
}
document.title = told.join(", ");
</script>
HTML
cat >make.py <<'PY'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

draw = np.random.default_rng(0)
for channels, side in [(5, 3), (6, 1), (6, 3), (7, 3), (8, 3), (9, 3), (10, 3), (12, 3), (18, 3)]:
    weights = draw.normal(size=(12, channels, side, side)) / np.sqrt(channels * side * side)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, 32, 64])
             for name, count in (("x", channels), ("y", 12))]
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[side // 2] * 4)
    held = [numpy_helper.from_array(weights.astype(np.float32), "w")]
    graph = helper.make_graph([node], "net", ports[:1], ports[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, f"package/{channels} k{side}.onnx")
PY
venv/bin/python make.py
cat >look.py <<'PY'
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import which

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="package"))
threading.Thread(target=server.serve_forever, daemon=True).start()
options = webdriver.ChromeOptions()
options.binary_location = which("chromium") or which("google-chrome")
for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-webgpu",
             "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"):
    options.add_argument(flag)
driver = webdriver.Chrome(options, Service(which("chromedriver")))
driver.get(f"http://127.0.0.1:{server.server_address[1]}/")
WebDriverWait(driver, 300).until(lambda _: "k3" in driver.title)
print(driver.title)
driver.quit()
PY
seen=$(venv/bin/python look.py 2>/dev/null)
echo "$seen"
wrong=$(tr ',' '\n' <<<"$seen" | grep -v same | sed 's/^ *//' | cut -d' ' -f1,2 | tr '\n' ',')
[ "$wrong" = "6 k3,9 k3,18 k3," ]
