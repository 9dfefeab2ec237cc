"""DeepLog's network in ONNX Runtime beside ours: predictions a CPU second, each on one thread, turn about.

The network has the default shape, two LSTM layers of 64 over ten steps and a dense layer to the templates, with random
weights: speed does not depend on them. Two inputs are measured, as both are in use: one-hot (as ours is trained) and the
template's number as one scalar (as in the public PyTorch versions). The input tensors are made before the clock starts.

Ours is the example `deeplog_speed`, which predicts on every line it reads; its cache is emptied before each call.

    pip install onnx onnxruntime
    cargo build --release -p faultline-detectors --example deeplog_speed
    python benches/peers/deeplog_onnx.py target/release/examples/deeplog_speed
"""

import argparse
import statistics
import subprocess
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

STEPS, HIDDEN = 10, 64


def graph(n_templates: int, n_inputs: int, rng: np.random.Generator) -> bytes:
    """`[STEPS, batch, n_inputs]` to log-probabilities `[batch, n_templates + 1]`."""
    def weights(name, *shape):
        values = rng.uniform(-0.125, 0.125, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    constants, nodes, below, width = [], [], "steps", n_inputs
    for layer in range(2):
        constants += [weights(f"w{layer}", 1, 4 * HIDDEN, width), weights(f"r{layer}", 1, 4 * HIDDEN, HIDDEN),
                      weights(f"b{layer}", 1, 8 * HIDDEN)]
        inputs = [below, f"w{layer}", f"r{layer}", f"b{layer}"]
        # Of the last layer only the last state is asked for.
        outputs = [f"y{layer}"] if layer == 0 else ["", "last"]
        nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=HIDDEN))
        if layer == 0:
            constants.append(numpy_helper.from_array(np.array([1]), "direction"))
            nodes.append(helper.make_node("Squeeze", ["y0", "direction"], ["steps1"]))
        below, width = "steps1", HIDDEN
    nodes.append(helper.make_node("Squeeze", ["last", "one"], ["state"]))
    constants += [numpy_helper.from_array(np.array([0]), "one"), weights("dense", HIDDEN, n_templates + 1),
                  weights("dense_bias", n_templates + 1)]
    nodes += [helper.make_node("Gemm", ["state", "dense", "dense_bias"], ["logits"]),
              helper.make_node("LogSoftmax", ["logits"], ["out"], axis=1)]
    float32 = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(nodes, "deeplog", [helper.make_tensor_value_info("steps", float32, [STEPS, "batch", n_inputs])],
                          [helper.make_tensor_value_info("out", float32, ["batch", n_templates + 1])], constants),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Onnx:
    """One input format of ONNX Runtime."""

    def __init__(self, name: str, n_templates: int, batch: int, rng: np.random.Generator):
        self.name, self.batch = f"ONNX Runtime {onnxruntime.__version__}, {name}", batch
        symbols = rng.integers(0, n_templates, (STEPS, batch))
        if name == "one-hot":
            steps = np.eye(n_templates + 1, dtype=np.float32)[symbols]
        else:
            steps = symbols[:, :, None].astype(np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = graph(n_templates, steps.shape[2], rng)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.feed = {"steps": np.ascontiguousarray(steps)}

    def round(self, seconds: float) -> float:
        """Predictions a CPU second."""
        self.session.run(None, self.feed)
        n, begin = 0, time.process_time()
        while (spent := time.process_time() - begin) < seconds:
            self.session.run(None, self.feed)
            n += self.batch
        return n / spent


class Ours:
    """The example, kept running."""

    def __init__(self, program: str, n_templates: int, batch: int):
        self.name = "faultline"
        command = [program, str(n_templates), str(batch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self, seconds: float) -> float:
        """Predictions a CPU second."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built example deeplog_speed")
    parser.add_argument("--templates", type=int, default=30)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds of a round")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    peers = [Onnx(name, args.templates, args.batch, rng) for name in ("one-hot", "scalar")]
    peers.append(Ours(args.program, args.templates, args.batch))
    rates = {peer.name: [] for peer in peers}
    for _ in range(args.rounds):
        for peer in peers:
            rates[peer.name].append(peer.round(args.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        spread = " ".join(f"{value:.0f}" for value in values)
        print(f"{name:32} {medians[name]:9.0f} predictions a CPU second (median of {spread})")
    best = max(median for name, median in medians.items() if name != "faultline")
    print(f"ours / the faster of the two: {medians['faultline'] / best:.2f}")


if __name__ == "__main__":
    main()
