"""List the layers of a network: where it can be chopped, and what each layer costs. A network that
cannot be chopped is refused, with the reason.

python -m experiments.layers network=torchvision network.model=resnet18
python -m experiments.layers network=timm network.model=tf_efficientnet_lite0 network.input_size=128
python -m experiments.layers network=timm network.model=tf_efficientnet_lite0 compare=true

Settings used most:
network=KIND             torchvision, timm, or one of ours (conf/network/)
network.model=NAME       its name in the library
network.input_size=N     image size in pixels
compare=true             compare the layers with the whole network bit for bit, as before training
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

from transferability.networks import NetworkConfig
from transferability.networks.sequential import profile_layers
from transferability.study.config import Config

CLASSES = 1000  # if the network's outputs are not set; as many as ImageNet has


def main(config: Config) -> None:
    print_layers(config.network, config.compare)


def print_layers(network: NetworkConfig, compare: bool = False) -> None:
    """Print a line per layer: number, modules, parameters, multiply-adds per image, output shape.

    Raises:
        UserError: the network cannot be chopped or, with ``compare``, the layers one after the
            other compute something else than the whole network.
    """
    network = network.resolved(network.outputs or CLASSES)
    rows = [["layer", "modules", "parameters", "multiply-adds", "output"]]
    for number, cost in enumerate(profile_layers(network), 1):
        size = " x ".join(map(str, cost.output))
        rows.append([str(number), cost.modules, f"{cost.parameters:,}", f"{cost.macs:,}", size])
    number, modules, parameters, operations, _ = (
        max(map(len, column)) for column in zip(*rows, strict=True)
    )
    for a, b, c, d, e in rows:
        print(f"{a:>{number}}  {b:<{modules}}  {c:>{parameters}}  {d:>{operations}}  {e}")
    print(
        f"\n{network.n_layers} layers, so n goes from 1 to {network.n_layers - 1}, for images of "
        f"{network.input_size}x{network.input_size} pixels and {network.outputs} classes."
    )
    if not compare:
        print(
            "Before training, the layers run one after the other are compared with the whole "
            "network, bit for bit (compare=true does it now)."
        )
        return
    network.verify()
    print(
        "The layers run one after the other give the same as the whole network, bit for bit: "
        "outputs, gradients and buffers, in training and in evaluation."
    )
