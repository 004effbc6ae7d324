"""The loop over thread blocks as LLVM IR: every warp in turn, from barrier to barrier."""

from __future__ import annotations

from . import layout, runtime

_RUN = """
@frame_bytes = constant i64 {frame}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define i64 @run(ptr noalias %state, ptr noalias %frames, i64 %first, i64 %last, i64 %warps) {{
ENTRY:
  %shared = load ptr, ptr %state
  %bytes.at = getelementptr i8, ptr %state, i64 {shared_bytes}
  %bytes = load i64, ptr %bytes.at
  %budget.at = getelementptr i8, ptr %state, i64 {budget}
  %budget = load i64, ptr %budget.at
  %block.at = getelementptr i8, ptr %state, i64 {block}
  %ctaid = getelementptr i8, ptr %state, i64 {ctaid}
  %nctaid = getelementptr i8, ptr %state, i64 {nctaid}
  %blocks.x = load i64, ptr %nctaid
  %nctaid.y = getelementptr i64, ptr %nctaid, i64 1
  %blocks.y = load i64, ptr %nctaid.y
  br label %NEXT
NEXT:
  %block = phi i64 [ %first, %ENTRY ], [ %block.on, %ON ]
  %more = icmp ult i64 %block, %last
  br i1 %more, label %BEGIN, label %END
BEGIN:
  store i64 %block, ptr %block.at
  %x = urem i64 %block, %blocks.x
  store i64 %x, ptr %ctaid
  %row = udiv i64 %block, %blocks.x
  %y = urem i64 %row, %blocks.y
  %ctaid.y = getelementptr i64, ptr %ctaid, i64 1
  store i64 %y, ptr %ctaid.y
  %z = udiv i64 %row, %blocks.y
  %ctaid.z = getelementptr i64, ptr %ctaid, i64 2
  store i64 %z, ptr %ctaid.z
  call void @llvm.memset.p0.i64(ptr %shared, i8 -1, i64 %bytes, i1 false)
  br label %RESET
RESET:
  %w = phi i64 [ 0, %BEGIN ], [ %w.on, %RESET ]
  %w.offset = mul i64 %w, {frame}
  %w.frame = getelementptr i8, ptr %frames, i64 %w.offset
  %w.fuel = getelementptr i8, ptr %w.frame, i64 {fuel}
  store i64 %budget, ptr %w.fuel
  %w.ended = getelementptr i8, ptr %w.frame, i64 {ended}
  store i32 0, ptr %w.ended
  %w.parked = getelementptr i8, ptr %w.frame, i64 {parked}
  call void @llvm.memset.p0.i64(ptr %w.parked, i8 0, i64 {parked_bytes}, i1 false)
  %w.on = add i64 %w, 1
  %w.more = icmp ult i64 %w.on, %warps
  br i1 %w.more, label %RESET, label %ROUND
ROUND:
  %resume = phi i32 [ -1, %RESET ], [ %agreed.on, %AGAIN ]
  br label %WARP
WARP:
  %v = phi i64 [ 0, %ROUND ], [ %v.on, %WARP.ON ]
  %agreed = phi i32 [ {done}, %ROUND ], [ %agreed.on, %WARP.ON ]
  %v.offset = mul i64 %v, {frame}
  %v.frame = getelementptr i8, ptr %frames, i64 %v.offset
  %begins = icmp slt i32 %resume, 0
  %v.waiting = getelementptr i8, ptr %v.frame, i64 {waiting}
  %v.safe = select i1 %begins, i32 0, i32 %resume
  %v.at = getelementptr i32, ptr %v.waiting, i32 %v.safe
  %v.lanes = load i32, ptr %v.at
  %v.waits = icmp ne i32 %v.lanes, 0
  %v.runs = or i1 %begins, %v.waits
  br i1 %v.runs, label %CALL, label %WARP.ON
CALL:
  %at = call i32 @warp(ptr %v.frame, ptr %state, i32 %resume)
  %stops = icmp eq i32 %at, {out}
  br i1 %stops, label %STOP, label %WARP.ON
WARP.ON:
  %found = phi i32 [ {done}, %WARP ], [ %at, %CALL ]
  %none.yet = icmp eq i32 %agreed, {done}
  %is.done = icmp eq i32 %found, {done}
  %same = icmp eq i32 %agreed, %found
  %joined = select i1 %none.yet, i32 %found, i32 {disagree}
  %kept = or i1 %is.done, %same
  %agreed.on = select i1 %kept, i32 %agreed, i32 %joined
  %v.on = add i64 %v, 1
  %v.more = icmp ult i64 %v.on, %warps
  br i1 %v.more, label %WARP, label %JUDGE
JUDGE:
  switch i32 %agreed.on, label %AGAIN [ i32 {done}, label %ON i32 {disagree}, label %STOP ]
AGAIN:
  br label %ROUND
ON:
  %block.on = add i64 %block, 1
  br label %NEXT
STOP:
  ret i64 %block
END:
  ret i64 %last
}}
"""


def thread_blocks(blocks: int, frame_bytes: int) -> str:
    """`run(state, frames, first, last, warps)`: where it stopped; `last` where nothing made it stop before."""
    return _RUN.format(
        parked=layout.PARKED, parked_bytes=8 * blocks, waiting=layout.PARKED + 4 * blocks, frame=frame_bytes,
        fuel=layout.FUEL, ended=layout.ENDED, budget=8 * runtime.BUDGET, block=8 * runtime.BLOCK,
        shared_bytes=8 * runtime.SHARED_BYTES, ctaid=8 * runtime.CTAID, nctaid=8 * runtime.NCTAID,
        done=layout.DONE, disagree=layout.DISAGREE, out=layout.OUT_OF_BUDGET,
    )  # fmt: skip
