//! Compiles the wait program, which `weft` carries inside: static, small, of the target's architecture.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "wait/program.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let program = PathBuf::from(variable("OUT_DIR")).join("wait_program");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin"])
        .args(["--crate-name", "wait_program"])
        .args(["--target", &variable("TARGET")])
        .args(["-C", "target-feature=+crt-static"])
        .args(["-C", "relocation-model=static"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "lto=fat"])
        .args(["-C", "codegen-units=1", "-C", "strip=symbols"]);
    // A cross build's own linker.
    let linker = variable("RUSTC_LINKER");
    if !linker.is_empty() {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(&program).arg(SOURCE).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("the wait program was not compiled: {status}"),
        Err(error) => panic!("the compiler for the wait program was not started: {error}"),
    }
}
