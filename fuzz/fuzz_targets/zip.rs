#![no_main]
advcl_fuzz::target!("zip");
