"""Samplers: turn noise into data with a Denoise and a path."""

from ldm.diffusion.samplers.annealed_langevin import AnnealedLangevin
from ldm.diffusion.samplers.base import Noise, Sampler, Step
from ldm.diffusion.samplers.cold import Cold
from ldm.diffusion.samplers.ddim import DDIM
from ldm.diffusion.samplers.ddpm import DDPM
from ldm.diffusion.samplers.deis import DEIS
from ldm.diffusion.samplers.dormand_prince import DormandPrince
from ldm.diffusion.samplers.dpm_solver import DPMSolver
from ldm.diffusion.samplers.dpm_solver_pp import DPMSolverPP
from ldm.diffusion.samplers.dpm_solver_sde import SDEDPMSolverPP
from ldm.diffusion.samplers.euler import Euler
from ldm.diffusion.samplers.euler_ancestral import EulerAncestral
from ldm.diffusion.samplers.euler_maruyama import EulerMaruyama
from ldm.diffusion.samplers.heun import Heun
from ldm.diffusion.samplers.inversion import DDIMInversion
from ldm.diffusion.samplers.pndm import PLMS, PNDM
from ldm.diffusion.samplers.predictor_corrector import PredictorCorrector
from ldm.diffusion.samplers.repaint import RePaint
from ldm.diffusion.samplers.rk4 import RK4
from ldm.diffusion.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "PLMS",
    "PNDM",
    "RK4",
    "AnnealedLangevin",
    "Cold",
    "DDIMInversion",
    "DPMSolver",
    "DPMSolverPP",
    "DormandPrince",
    "Euler",
    "EulerAncestral",
    "EulerMaruyama",
    "Heun",
    "Noise",
    "PredictorCorrector",
    "RePaint",
    "SDEDPMSolverPP",
    "Sampler",
    "Step",
    "UniPC",
]
