"""The loops whose rates are a GPU's ceilings, as PTX: they need a driver and no compiler, and the executor runs them.

copy          16 bytes per thread and step, past the L1 (.cg); every byte of the working set once per turn
exponentials  ex2.approx, what every kernel's exp is made of; CHAINS independent chains per thread hide its latency
"""

from __future__ import annotations

CHAINS = 8
THREADS = 256
WIDTH = 16  # bytes of a vector

_HEAD = ".version 8.2\n.target sm_80\n.address_size 64\n"
_THREAD = """
    mov.u32 %thread, %tid.x;
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mad.lo.u32 %thread, %block, %size, %thread;"""

COPY = f"""{_HEAD}
.visible .entry copy(.param .u64 from, .param .u64 to, .param .u32 vectors, .param .u32 turns)
{{
    .reg .pred %p, %q;
    .reg .b64 %from, %to, %offset, %a, %b;
    .reg .b32 %thread, %block, %size, %blocks, %all, %at, %vectors, %turn, %turns, %w<4>;
    ld.param.u64 %from, [from];
    ld.param.u64 %to, [to];
    ld.param.u32 %vectors, [vectors];
    ld.param.u32 %turns, [turns];{_THREAD}
    mov.u32 %blocks, %nctaid.x;
    mul.lo.u32 %all, %blocks, %size;
    mov.u32 %turn, 0;
TURN:
    setp.ge.u32 %p, %turn, %turns;
    @%p bra DONE;
    mov.u32 %at, %thread;
STEP:
    setp.ge.u32 %q, %at, %vectors;
    @%q bra NEXT;
    mul.wide.u32 %offset, %at, {WIDTH};
    add.s64 %a, %from, %offset;
    add.s64 %b, %to, %offset;
    ld.global.cg.v4.u32 {{%w0, %w1, %w2, %w3}}, [%a];
    st.global.cg.v4.u32 [%b], {{%w0, %w1, %w2, %w3}};
    add.u32 %at, %at, %all;
    bra.uni STEP;
NEXT:
    add.u32 %turn, %turn, 1;
    bra.uni TURN;
DONE:
    ret;
}}
"""

_X = [f"%x{n}" for n in range(CHAINS)]
_LINE = "\n    "
EXPONENTIALS = f"""{_HEAD}
.visible .entry exponentials(.param .u64 out, .param .u32 turns)
{{
    .reg .pred %p;
    .reg .b64 %to, %offset;
    .reg .b32 %thread, %block, %size, %turn, %turns;
    .reg .f32 %sum, {", ".join(_X)};
    ld.param.u64 %to, [out];
    ld.param.u32 %turns, [turns];{_THREAD}
    mov.u32 %turn, 0;
    mov.f32 %sum, 0f00000000;
    {_LINE.join(f"mov.f32 {x}, 0f3F000000;" for x in _X)}
TURN:
    setp.ge.u32 %p, %turn, %turns;
    @%p bra DONE;
    {_LINE.join(f"ex2.approx.ftz.f32 {x}, {x};{_LINE}neg.ftz.f32 {x}, {x};" for x in _X)}
    add.u32 %turn, %turn, 1;
    bra.uni TURN;
DONE:
    {_LINE.join(f"add.ftz.f32 %sum, %sum, {x};" for x in _X)}
    mul.wide.u32 %offset, %thread, 4;
    add.s64 %to, %to, %offset;
    st.global.f32 [%to], %sum;
    ret;
}}
"""
