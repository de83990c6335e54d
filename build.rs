//! What is compiled into the tool changes when a file is added: `include_dir` alone does not notice that.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for folder in ["images", "labs", "templates"] {
        if std::path::Path::new(folder).is_dir() {
            println!("cargo::rerun-if-changed={folder}");
        }
    }
}
