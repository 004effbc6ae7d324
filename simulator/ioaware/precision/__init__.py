"""How exact attention is: number formats, scales, rotations and exp2 as kernels have them, and what they cost.

formats      rounding to fp32, tf32, bf16, fp16, fp8, int8, int4           scales      one scale per tensor, block, row
incoherent   random-sign Hadamard transform                               exp2        FlashAttention-4's polynomials
attention    standard and tiled attention, rounding where they round      method      storage and computation together
precisions   the methods in fewer bits                                    approximate sparse and linear attention
methods      the table of all methods                                     measure     inputs, errors against float64
table3       FlashAttention-3, Table 3
"""
