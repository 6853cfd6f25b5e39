"""advcl from Python: `load` a model as a PyTorch module, `evaluate` a module by the program's attacks.

    import advcl

    net = advcl.load("runs/quickstart/advcl/slf")
    result = advcl.evaluate(net, images, labels, radius="8/255", attack="autoattack")
    print(result.clean_accuracy, result.robust_accuracy, result.warnings)

Both need PyTorch: `pip install advcl[torch]`. The program `advcl` of the same package does not.
"""
from .program import ProgramError

try:
    from .evaluation import Evaluation, evaluate
    from .network import Network, load
except ModuleNotFoundError as error:
    if error.name not in ("torch", "safetensors", "numpy"):
        raise
    raise ModuleNotFoundError(f"{error}: the module advcl needs PyTorch, safetensors and NumPy: pip install advcl[torch]", name=error.name) from error

__all__ = ["Evaluation", "Network", "ProgramError", "evaluate", "load"]
