#!/usr/bin/env bash
# One would guess: TensorFlow joins a ReLU to the batch normalisation before it (its remapper does, on a CPU with
# oneDNN) because one operation is faster than two.
#
# What happens: in training, for a number of maps that is no multiple of the vector (12 here), oneDNN has generated code
# for the normalisation but none for the pair, and takes its generic one, ten times slower than the normalisation
# alone. 16 maps stay fast. In bfloat16 12 maps are generic without a ReLU too. Anything between the two, such as
# tf.ensure_shape, keeps them apart.
#
# Versions: Python 3.11, tensorflow 2.21.0 (oneDNN inside it).
# Seen on 2026-11-29 (milliseconds of a CPU with AVX-512, not checked):
#   12 maps, ReLU behind: nspc_bnorm:any (8.13989)
#   12 maps, ensure_shape between: bnorm_tbb_jit:sse41 (1.13501)
#   16 maps, ReLU behind: bnorm_tbb_jit:avx512_core (0.707031)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q tensorflow==2.21.0
cat > "$work/step.py" <<'PY'
import sys

import tensorflow as tf

maps, apart = int(sys.argv[1]), sys.argv[2] == "apart"


@tf.function
def step(images):
    scale, offset, none = tf.ones([maps]), tf.zeros([maps]), tf.zeros([0])
    out = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=scale, offset=offset, mean=none, variance=none, is_training=True
    )[0]
    return tf.nn.relu(tf.ensure_shape(out, out.shape) if apart else out)


images = tf.random.normal([16, 64, 128, maps])
for _ in range(3):
    step(images)
PY
# The sixth field of a line of oneDNN's log is the primitive, the seventh the implementation, the last the milliseconds.
implementation() {
  ONEDNN_VERBOSE=1 TF_CPP_MIN_LOG_LEVEL=3 "$work/venv/bin/python" "$work/step.py" "$1" "$2" 2>/dev/null |
    awk -F, '$6 == "batch_normalization" {name = $7; ms = $NF} END {print name " (" ms ")"}'
}
joined=$(implementation 12 joined)
apart=$(implementation 12 apart)
even=$(implementation 16 joined)
echo "12 maps, ReLU behind: $joined"
echo "12 maps, ensure_shape between: $apart"
echo "16 maps, ReLU behind: $even"
[[ $joined == nspc_bnorm* && $apart == *jit* && $even == *jit* ]]
