//! AMX for processors without it, so that its kernels are tested there too: a library to preload into a test program.
//!
//! It says that the processor has AMX, and carries out the instructions when the processor refuses them. The first takes CPUID
//! faulting, by which Linux lets a process answer its own questions about the processor.
//!
//! The law: an instruction does what Intel's manual says of it ("Intel 64 and IA-32 Architectures Software Developer's Manual",
//! volume 2, TDPBSSD and others); what the manual calls an error ends the process, and so does a program that multiplied nothing.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use half::bf16;
use libc::{c_int, c_long, c_void, siginfo_t, ucontext_t};
use std::arch::{asm, x86_64::__cpuid_count};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROWS: usize = 16;
const ROW: usize = 64;

/// A register: its shape and what it holds. Without a shape it has no rows.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    bytes: usize,
    data: [[u8; ROW]; ROWS],
}

impl Tile {
    const NONE: Tile = Tile { rows: 0, bytes: 0, data: [[0; ROW]; ROWS] };

    fn four(&self, row: usize, index: usize) -> [u8; 4] {
        self.data[row][4 * index..][..4].try_into().expect("four bytes")
    }
}

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([Tile::NONE; 8]) };
}

/// Products that were carried out.
static PRODUCTS: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy)]
enum Operand {
    Register(usize),
    /// An address, and bytes from row to row.
    Memory(*mut u8, usize),
}

/// VEX of three bytes, an opcode, ModRM, and perhaps SIB and a displacement.
struct Instruction {
    opcode: u8,
    /// As VEX has it: 0 for none, 2 for F3, 3 for F2.
    prefix: u8,
    register: usize,
    operand: Operand,
    third: usize,
    length: usize,
}

impl Instruction {
    /// # Safety
    /// `at` is the address of an instruction; `value` gives the values of general registers.
    unsafe fn read(at: *const u8, value: impl Fn(usize) -> usize) -> Instruction {
        // SAFETY: no instruction of the group is longer than ten bytes; what follows the last one of a program is padding.
        let [escape, map, vex, opcode, modes, rest @ ..] = unsafe { at.cast::<[u8; 10]>().read_unaligned() };
        let is_known = escape == 0xc4 && map & 0x1f == 2 && vex & 0x84 == 0;
        assert!(is_known, "unknown instruction {:02x?}", [escape, map, vex, opcode, modes]);
        let high = |bit: u8| if map & bit == 0 { 8 } else { 0 };
        let (mode, low) = (modes >> 6, usize::from(modes & 7));
        let (operand, length) = match (mode, low) {
            (3, _) => (Operand::Register(low), 5),
            (_, 4) => {
                let (base, index) = (usize::from(rest[0] & 7), usize::from(rest[0] >> 3 & 7) + high(0x40));
                assert!(mode != 0 || base != 5, "an address without a base");
                let stride = if index == 4 { 0 } else { value(index) << (rest[0] >> 6) };
                let (offset, bytes) = displacement(mode, &rest[1..]);
                (Operand::Memory((value(base + high(0x20)) + offset) as *mut u8, stride), 6 + bytes)
            }
            _ => {
                assert!(mode != 0 || low != 5, "an address beside the instruction");
                let (offset, bytes) = displacement(mode, &rest);
                (Operand::Memory((value(low + high(0x20)) + offset) as *mut u8, 0), 5 + bytes)
            }
        };
        let (register, third) = (usize::from(modes >> 3 & 7), usize::from(!vex >> 3 & 15));
        Instruction { opcode, prefix: vex & 3, register, operand, third, length }
    }

    /// # Safety
    /// The memory that it names is the program's.
    unsafe fn carry_out(&self, tiles: &mut [Tile; 8]) {
        let to = self.register;
        match (self.opcode, self.prefix, self.operand) {
            // SAFETY: as for the caller.
            (0x49, 0, Operand::Memory(from, _)) => *tiles = shapes(unsafe { from.cast::<[u8; ROW]>().read() }),
            (0x49, 0, Operand::Register(0)) => *tiles = [Tile::NONE; 8],
            (0x49, 3, Operand::Register(_)) => shaped(&mut tiles[to]).data = Tile::NONE.data,
            (0x4b, 3, Operand::Memory(from, stride)) => {
                let tile = shaped(&mut tiles[to]);
                tile.data = Tile::NONE.data;
                for (row, data) in tile.data.iter_mut().enumerate().take(tile.rows) {
                    // SAFETY: as for the caller.
                    unsafe { from.add(row * stride).copy_to(data.as_mut_ptr(), tile.bytes) };
                }
            }
            (0x4b, 2, Operand::Memory(into, stride)) => {
                let tile = shaped(&mut tiles[to]);
                for (row, data) in tile.data.iter().enumerate().take(tile.rows) {
                    // SAFETY: as for the caller.
                    unsafe { into.add(row * stride).copy_from(data.as_ptr(), tile.bytes) };
                }
            }
            (0x5e, 3, Operand::Register(x)) => multiply(tiles, to, x, self.third, add_bytes),
            (0x5c, 2, Operand::Register(x)) => multiply(tiles, to, x, self.third, add_halves),
            _ => panic!("unknown instruction {:x} with prefix {}", self.opcode, self.prefix),
        }
    }
}

/// An offset of an address, and how many bytes it takes.
fn displacement(mode: u8, bytes: &[u8]) -> (usize, usize) {
    match mode {
        0 => (0, 0),
        1 => (bytes[0] as i8 as usize, 1),
        _ => (i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize, 4),
    }
}

/// Empty registers of the shapes that `ldtilecfg` reads.
fn shapes(memory: [u8; ROW]) -> [Tile; 8] {
    assert_eq!(memory[..2], [1, 0], "palette and first row");
    std::array::from_fn(|i| {
        let bytes = u16::from_le_bytes([memory[16 + 2 * i], memory[17 + 2 * i]]).into();
        let rows = memory[48 + i].into();
        assert!(rows <= ROWS && bytes <= ROW && (rows == 0) == (bytes == 0), "{rows} rows of {bytes} bytes");
        Tile { rows, bytes, ..Tile::NONE }
    })
}

fn shaped(tile: &mut Tile) -> &mut Tile {
    assert!(tile.rows > 0, "a register without a shape");
    tile
}

/// `to += x · w`, where each row of `x` meets the columns of `w` four bytes at a time.
fn multiply(tiles: &mut [Tile; 8], to: usize, x: usize, w: usize, add: fn(&mut [u8; 4], &[[[u8; 4]; 2]])) {
    assert!(to != x && to != w && x != w, "a product of a register with itself");
    let (x, w, to) = (*shaped(&mut tiles[x]), *shaped(&mut tiles[w]), shaped(&mut tiles[to]));
    assert_eq!((to.rows, to.bytes, 4 * w.rows), (x.rows, w.bytes, x.bytes), "shapes of a product");
    for row in 0..to.rows {
        for column in 0..to.bytes / 4 {
            let mut pairs = [[[0; 4]; 2]; ROWS];
            for (k, pair) in pairs.iter_mut().enumerate().take(w.rows) {
                *pair = [x.four(row, k), w.four(k, column)];
            }
            let mut sum = to.four(row, column);
            add(&mut sum, &pairs[..w.rows]);
            to.data[row][4 * column..][..4].copy_from_slice(&sum);
        }
    }
    PRODUCTS.fetch_add(1, Ordering::Relaxed);
}

/// `tdpbssd`: products of signed bytes.
fn add_bytes(sum: &mut [u8; 4], pairs: &[[[u8; 4]; 2]]) {
    let products = pairs.iter().flat_map(|[x, w]| x.iter().zip(w)).map(|(x, w)| (*x as i8 as i32) * (*w as i8 as i32));
    *sum = products.fold(i32::from_le_bytes(*sum), i32::wrapping_add).to_le_bytes();
}

/// `tdpbf16ps`: even columns are one chain of sums, odd ones another; numbers below 2⁻¹²⁶ are zeros.
fn add_halves(sum: &mut [u8; 4], pairs: &[[[u8; 4]; 2]]) {
    let float = |[x, y]: [u8; 2]| flushed(bf16::from_le_bytes([x, y]).to_f32());
    let (mut even, mut odd) = (0.0, 0.0);
    for [x, w] in pairs {
        even = flushed(float([x[0], x[1]]).mul_add(float([w[0], w[1]]), even));
        odd = flushed(float([x[2], x[3]]).mul_add(float([w[2], w[3]]), odd));
    }
    *sum = flushed(flushed(f32::from_le_bytes(*sum)) + flushed(even + odd)).to_le_bytes();
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        return 0f32.copysign(x);
    }
    x
}

/// General registers of a context in the order of their numbers.
const GENERAL: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// SIGILL: an instruction that the processor refuses.
extern "C" fn on_refused(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives the context of the instruction, which is one of AMX or ends the process.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let next = registers[libc::REG_RIP as usize];
        let instruction = Instruction::read(next as *const u8, |number| registers[GENERAL[number] as usize] as usize);
        TILES.with_borrow_mut(|tiles| instruction.carry_out(tiles));
        registers[libc::REG_RIP as usize] = next + instruction.length as i64;
    }
}

/// SIGSEGV: a question about the processor, or what the signal else means.
extern "C" fn on_fault(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    const CPUID: [u8; 2] = [0x0f, 0xa2];
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    // SAFETY: as above; the instruction is one that the processor has read.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let [a, b, c, d, next] = [libc::REG_RAX, libc::REG_RBX, libc::REG_RCX, libc::REG_RDX, libc::REG_RIP]
            .map(|register| register as usize);
        if (registers[next] as *const [u8; 2]).read_unaligned() != CPUID {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            return;
        }
        let (leaf, subleaf) = (registers[a] as u32, registers[c] as u32);
        answer_questions(false);
        let mut answer = __cpuid_count(leaf, subleaf);
        answer_questions(true);
        if (leaf, subleaf) == (7, 0) {
            answer.edx |= BF16_TILE_INT8;
        }
        for (register, value) in [(a, answer.eax), (b, answer.ebx), (c, answer.ecx), (d, answer.edx)] {
            registers[register] = value.into();
        }
        registers[next] += CPUID.len() as i64;
    }
}

const ARCH_PRCTL: c_long = 158;

/// Whether questions of this thread (and of those that it starts from now on) about the processor fault.
fn answer_questions(ourselves: bool) {
    const SET_CPUID: c_long = 0x1012;
    let refused = system([ARCH_PRCTL, SET_CPUID, (!ourselves).into(), 0, 0, 0, 0]);
    assert_eq!(refused, 0, "this processor has no CPUID faulting");
}

/// A call of the system; negative numbers are errors.
fn system([number, a, b, c, d, e, f]: [c_long; 7]) -> c_long {
    let result;
    // SAFETY: what the program asks the system for.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r9") f, lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// In place of the C library's: grants the registers of AMX, passes on the rest.
#[no_mangle]
extern "C" fn syscall(number: c_long, a: c_long, b: c_long, c: c_long, d: c_long, e: c_long, f: c_long) -> c_long {
    const REQUEST_FEATURE: c_long = 0x1023;
    if [number, a] == [ARCH_PRCTL, REQUEST_FEATURE] {
        return 0;
    }
    let result = system([number, a, b, c, d, e, f]);
    if (-4095..0).contains(&result) {
        // SAFETY: the address of this thread's error number.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}

fn handle(signal: c_int, handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void)) {
    // SAFETY: a handler of the form that its flags say.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0, "signal {signal} has no handler");
    }
}

/// What the system runs when it loads the library.
#[used]
#[link_section = ".init_array"]
static START: extern "C" fn() = start;

extern "C" fn start() {
    handle(libc::SIGILL, on_refused);
    handle(libc::SIGSEGV, on_fault);
    answer_questions(true);
    // SAFETY: a function without arguments.
    unsafe { libc::atexit(end) };
}

extern "C" fn end() {
    if PRODUCTS.load(Ordering::Relaxed) == 0 {
        eprintln!("no product of AMX was asked for");
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
}
