//! PyTorch files: what is in them comes out, and a pickle can only ever describe tensors.

mod fixtures;

use fixtures::{fixture, json, Scratch};
use proptest::prelude::*;
use sglang_engine::weights::{self, Source};
use sglang_kernels::dtype::DType;
use std::path::Path;

/// The original layout of LLaVA (its tower in a folder of its own) and the newer one hold the same weights, in f32 and
/// in bf16, and go by the same names.
#[test]
fn shards_hold_what_their_safetensors_twin_holds() {
    let [bin, safetensors] = ["llava-original", "llava"].map(|name| weights::open(&fixture(name)).unwrap().weights);
    assert_eq!(bin.names(), safetensors.names());
    for name in bin.names() {
        let (ours, twin) = (bin.tensor(&name).unwrap(), safetensors.tensor(&name).unwrap());
        assert_eq!((ours.dtype, twin.dtype, &ours.shape), (DType::F32, DType::BF16, &twin.shape), "{name}");
        assert_eq!(ours.to_f32(), twin.to_f32(), "{name}");
    }
}

/// A ZIP archive of stored entries, as PyTorch writes it.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let sizes = [(data.len() as u32).to_le_bytes(); 2].concat();
        let lengths = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        let at = (file.len() as u32).to_le_bytes();
        file.extend([b"PK\x03\x04", &[0; 14][..], &sizes, &lengths, name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02", &[0; 16][..], &sizes, &lengths, &[0; 10], &at, name.as_bytes()].concat());
    }
    let counts = [(entries.len() as u16).to_le_bytes(); 2].concat();
    let place = [(directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes()].concat();
    [&file, &directory, &b"PK\x05\x06\0\0\0\0"[..], &counts, &place, &[0; 2]].concat()
}

/// A pickle that sets one item, `w`, to a tensor over storage 0.
fn pickle(class: &str, offset: u8, sizes: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let pair = |[a, b]: [u8; 2]| [b'K', a, b'K', b, 0x86].to_vec();
    let storage = [b"(", &text("storage")[..], class.as_bytes(), &text("0"), &text("cpu"), b"K\x08tQ"].concat();
    let tensor = [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage[..],
        &[b'K', offset],
        &pair(sizes),
        &pair(strides),
        b"\x89)tR",
    ];
    [b"\x80\x02ccollections\nOrderedDict\n)Rq\0(", &text("w")[..], &tensor.concat(), b"u."].concat()
}

fn model(pickle: &[u8]) -> Scratch {
    let scratch = Scratch::new();
    let data: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    scratch.write("config.json", json("llama/config.json").to_string());
    scratch.write("pytorch_model.bin", zip(&[("a/data.pkl", pickle), ("a/data/0", &data)]));
    scratch
}

/// The folder, for as long as its tensors are read, and them.
fn opened(pickle: &[u8]) -> Result<(Scratch, Box<dyn Source>), String> {
    let scratch = model(pickle);
    let files = weights::open(&scratch.0).map_err(|e| {
        let message = e.to_string();
        message.split_once("pytorch_model.bin: ").unwrap_or_else(|| panic!("{message}")).1.to_owned()
    })?;
    Ok((scratch, files.weights))
}

const FLOATS: &str = "ctorch\nFloatStorage\n";

#[test]
fn a_tensor_is_a_part_of_its_storage() {
    let (_folder, weights) = opened(&pickle(FLOATS, 2, [2, 3], [3, 1])).unwrap();
    assert_eq!(weights.names(), ["w"]);
    let tensor = weights.tensor("w").unwrap();
    assert_eq!((tensor.shape.as_slice(), tensor.to_f32()), (&[2, 3][..], vec![2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
}

#[test]
fn whatever_is_not_a_tensor_is_refused() {
    let error = |pickle: &[u8]| opened(pickle).err().expect("must fail");
    assert_eq!(
        error(b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R."),
        "names posix.system; files of tensors never need it, so it is not read"
    );
    assert_eq!(
        error(b"\x80\x02cbuiltins\neval\n."),
        "names builtins.eval; files of tensors never need it, so it is not read"
    );
    assert_eq!(error(b"\x80\x02(i"), "has pickle opcode 0x69 at byte 3, which no tensor needs");
    assert_eq!(error(b"\x80\x02}"), "is cut off or damaged: its pickle ends too soon");
    assert_eq!(error(b"."), "is damaged: its pickle takes from an empty stack");
    assert_eq!(error(b"K\x01."), "holds no dictionary of tensors");
    assert_eq!(error(b"h\x07."), "is damaged: its pickle recalls what it never made");
    assert_eq!(error(&pickle(FLOATS, 3, [2, 3], [3, 1])), "tensor w: does not fit its data");
    assert_eq!(
        error(&pickle(FLOATS, 0, [2, 3], [1, 2])),
        "tensor w: its rows are not one after the other, which is not supported"
    );
}

#[test]
fn a_format_that_is_not_known_is_an_error_when_it_is_read() {
    let (_folder, weights) = opened(&pickle("ctorch\nLongStorage\n", 0, [2, 2], [2, 1])).unwrap();
    let message = weights.tensor("w").unwrap_err().to_string();
    assert!(message.ends_with("tensor w has format LongStorage; supported are floats of 16 and 32 bits"), "{message}");
}

/// A dictionary that contains itself, and lists of lists of lists.
#[test]
fn cycles_and_towers_cost_nothing() {
    assert_eq!(opened(b"}q\0X\x01\0\0\0kh\0s.").unwrap().1.names(), Vec::<String>::new());
    let tower =
        [b"}q\0X\x01\0\0\0k".to_vec(), b")".to_vec(), [b'q', 1, b'h', 1, 0x86].repeat(500), b"s.".to_vec()].concat();
    assert_eq!(opened(&tower).unwrap().1.names(), Vec::<String>::new());
}

fn read_all(path: &Path) {
    let Ok(files) = weights::open(path) else { return };
    for name in files.weights.names() {
        let _ = files.weights.tensor(&name).map(|tensor| tensor.to_f32());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_never_panics(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let scratch = model(&pickle(FLOATS, 2, [2, 3], [3, 1]));
        let path = scratch.0.join("pytorch_model.bin");
        let mut file = std::fs::read(&path).unwrap();
        hits.iter().for_each(|(at, byte)| { let at = at.index(file.len()); file[at] = *byte; });
        file.truncate(cut.map_or(file.len(), |cut| cut.index(file.len())));
        std::fs::write(&path, file).unwrap();
        read_all(&scratch.0);
    }

    #[test]
    fn no_pickle_panics(opcodes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"}()tq\x00h\x00sueR\x86X\x01\0\0\0aK\x01Q.".to_vec())], 0..40)) {
        let _ = opened(&opcodes);
    }
}
