//! Compiles `shim.cpp` against the libtorch that torch-sys links.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=onednn/shim.cpp");
    let lib = std::env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where libtorch lies");
    let include = PathBuf::from(lib).with_file_name("include");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(include)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .warnings(false)
        .file("onednn/shim.cpp")
        .compile("affectmill_onednn");
}
