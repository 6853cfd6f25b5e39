//! Processes that a launcher of MPI starts. What they compute together is checked by scripts/check_mpi.sh.

use crate::Transcript;

/// Without the feature every process would do the whole work, in the same folder.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_refuses_to_be_one_of_several() {
    use crate::harness::{answer, program};

    let folder = tempfile::tempdir().expect("a folder");
    let mut transcript = Transcript::new(folder.path());
    for [rank, ranks] in [
        ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
        ["PMI_RANK", "PMI_SIZE"],
    ] {
        let start = |number: &str| {
            let mut command = program(folder.path());
            command
                .args(["run", "smoke"])
                .env(rank, number)
                .env(ranks, "2");
            answer(&mut command).expect(2)
        };
        transcript.add(&start("0"));
        assert_eq!(start("1").stderr, "", "the first one tells it");
    }
    transcript.check("refused_without_mpi");
    let made = std::fs::read_dir(folder.path()).expect("the folder");
    assert_eq!(made.count(), 0, "nothing is written");
}

#[test]
fn shards_that_cannot_be_are_refused_before_any_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut transcript = Transcript::new(folder.path());
    for args in [
        "run smoke --shards 0",
        "run smoke --shards 33",
        "run smoke --set batchnorm='none'",
        "run smoke --shards 2 --set batchnorm='global' --micro-batch 8",
    ] {
        transcript.refuse(args);
    }
    transcript.check("shards_that_cannot_be");
}
