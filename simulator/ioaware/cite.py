"""BibTeX of what a simulation rests on: the algorithms' papers, the bound, and this tool."""

from __future__ import annotations

from collections.abc import Iterable

from .algorithms import find_all

PAPERS = {
    "flash1": """@inproceedings{dao2022flashattention,
  title={{FlashAttention}: Fast and Memory-Efficient Exact Attention with {IO}-Awareness},
  author={Dao, Tri and Fu, Daniel Y. and Ermon, Stefano and Rudra, Atri and R{\\'e}, Christopher},
  booktitle={Advances in Neural Information Processing Systems},
  year={2022},
  note={arXiv:2205.14135}
}""",
    "flash2": """@inproceedings{dao2024flashattention2,
  title={{FlashAttention-2}: Faster Attention with Better Parallelism and Work Partitioning},
  author={Dao, Tri},
  booktitle={International Conference on Learning Representations},
  year={2024},
  note={arXiv:2307.08691}
}""",
    "online_softmax": """@misc{milakov2018online,
  title={Online normalizer calculation for softmax},
  author={Milakov, Maxim and Gimelshein, Natalia},
  year={2018},
  note={arXiv:1805.02867}
}""",
    "memory_efficient": """@misc{rabe2021selfattention,
  title={Self-attention Does Not Need {$O(n^2)$} Memory},
  author={Rabe, Markus N. and Staats, Charles},
  year={2021},
  note={arXiv:2112.05682}
}""",
    "flash_decoding": """@misc{dao2023flashdecoding,
  title={{Flash-Decoding} for long-context inference},
  author={Dao, Tri and Haziza, Daniel and Massa, Francisco and Sizov, Grigory},
  year={2023},
  howpublished={\\url{https://crfm.stanford.edu/2023/10/12/flashdecoding.html}}
}""",
    "flash3": """@inproceedings{shah2024flashattention3,
  title={{FlashAttention-3}: Fast and Accurate Attention with Asynchrony and Low-precision},
  author={Shah, Jay and Bikshandi, Ganesh and Zhang, Ying and Thakkar, Vijay and Ramani, Pradeep and Dao, Tri},
  booktitle={Advances in Neural Information Processing Systems},
  year={2024},
  note={arXiv:2407.08608}
}""",
    "flash4": """@misc{zadouri2026flashattention4,
  title={{FlashAttention-4}: Algorithm and Kernel Pipelining Co-Design for Asymmetric Hardware Scaling},
  author={Zadouri, Ted and others},
  year={2026},
  note={arXiv:2603.05451}
}""",
    "mla": """@misc{deepseek2024v2,
  title={{DeepSeek-V2}: A Strong, Economical, and Efficient Mixture-of-Experts Language Model},
  author={{DeepSeek-AI}},
  year={2024},
  note={arXiv:2405.04434}
}""",
    "linear": """@inproceedings{katharopoulos2020transformers,
  title={Transformers are {RNN}s: Fast Autoregressive Transformers with Linear Attention},
  author={Katharopoulos, Angelos and Vyas, Apoorv and Pappas, Nikolaos and Fleuret, Fran{\\c{c}}ois},
  booktitle={International Conference on Machine Learning},
  year={2020},
  note={arXiv:2006.16236}
}""",
    "bound": """@inproceedings{saha2024io,
  title={The {I/O} Complexity of Attention, or How Optimal is {FlashAttention}?},
  author={Saha, Barna and Ye, Christopher},
  booktitle={International Conference on Machine Learning},
  year={2024},
  note={arXiv:2402.07443}
}""",
}


def citation(algorithms: Iterable[str]) -> str:
    """BibTeX for exactly what these algorithms and their bound use."""
    from . import __version__

    keys = [key for a in find_all(algorithms) for key in a.papers]
    title = "ioaware: a simulator and verifier of IO-aware attention"
    tool = f"@software{{ioaware,\n  title={{{title}}},\n  version={{{__version__}}}\n}}"
    return "\n\n".join([*(PAPERS[key] for key in dict.fromkeys([*keys, "bound"])), tool])
