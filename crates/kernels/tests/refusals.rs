//! Bad input is an error that says what was given and what would be right, on every device alike.

use sglang_kernels::device::{CopyRows, Device, Heads, HostMatrix, KvFormat, KvShape, Span};
use sglang_kernels::{Cpu, DType, Reference, Result};

const HEADS: Heads = Heads { q: 2, kv: 1, size: 4 };

/// The errors of calls that are wrong in one way each.
fn errors<D: Device>(d: &mut D) -> Result<Vec<String>> {
    let (x, mut out, mut wide) = (d.buffer(64)?, d.buffer(64)?, d.buffer(192)?);
    let shape = KvShape { layers: 1, kv_heads: 1, head_size: 4, pages: 2, format: KvFormat::F32 };
    let mut kv = d.kv(shape)?;
    let weights = HostMatrix { rows: 2, cols: 40, dtype: DType::F32, bytes: &[0; 320] };
    let w = d.matrix(&[weights], false)?;
    let span = |rows, position, pages: &[u32]| [Span { rows, position, pages: pages.to_vec() }];
    let results = [
        d.write(&mut out, &[0.0; 65]),
        d.matmul(&x, &w, 2, &mut out),
        d.add_norm(&mut wide, &mut out, &x, 1e-5, 2),
        d.embed(&w, &[0, 2], &mut out),
        d.gather(&x, &[3, 4], 16, &mut out),
        d.store_kv(&x, HEADS, &mut kv, 1, &span(0..1, 0, &[0])),
        d.store_kv(&x, HEADS, &mut kv, 0, &span(0..1, 16, &[0])),
        d.store_kv(&x, HEADS, &mut kv, 0, &span(0..1, 0, &[2])),
        d.store_kv(&x, HEADS, &mut kv, 0, &span(0..5, 0, &[0])),
        d.store_kv(&x, Heads { size: 8, ..HEADS }, &mut kv, 0, &span(0..1, 0, &[0])),
        d.attention(&x, HEADS, &kv, 0, &[span(0..2, 0, &[0]), span(1..3, 0, &[1])].concat(), 0, 1.0, &mut out),
        d.copy_rows(&mut kv, &[CopyRows { from: 0, to: 1, rows: 17 }]),
    ];
    Ok(results.into_iter().map(|r| r.map_or_else(|e| e.to_string(), |()| "accepted".into())).collect())
}

const EXPECTED: [&str; 12] = [
    "buffer holds 64 values; 65 are needed",
    "x of matmul holds 64 values; 80 are needed",
    "operand of add_norm holds 64 values; 128 are needed",
    "token 2 is out of range; there are 2",
    "row 4 is out of range; there are 4",
    "layer 1 is out of range; there are 1",
    "page table holds 1 values; 2 are needed",
    "page 2 is out of range; there are 2",
    "span 0..5 is not within 4 rows",
    "1 heads of size 8; the cache holds 1 heads of size 4",
    "span 1..3 after 0..2; spans must ascend and not overlap",
    "17 rows to copy of a page of 16",
];

#[test]
fn bad_input_is_named() {
    assert_eq!(errors(&mut Reference).unwrap(), EXPECTED);
    assert_eq!(errors(&mut Cpu::new(2, None).unwrap()).unwrap(), EXPECTED);
}
