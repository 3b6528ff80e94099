"""The processes of a command that needs no Trainer."""

from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ldm.errors import UserError


def launch(accelerator: str, devices: int, num_nodes: int, precision: str) -> Fabric:
    """Start them, and return each its Fabric.

    Raises:
        UserError: this machine has no such devices.
    """
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)  # type: ignore[arg-type]
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"--accelerator {accelerator} --devices {devices} --precision {precision} cannot be had on this machine: "
            f"{' '.join(str(error).split())}"
        ) from None
    fabric.launch()
    return fabric
