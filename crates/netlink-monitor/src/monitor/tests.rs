use super::*;

#[test]
fn a_broken_connection_is_opened_again_and_reported_as_a_loss() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut monitor = Monitor::open().unwrap();
        let before = Instant::now();
        monitor.break_off(PAUSE_MIN);

        assert_eq!(monitor.next().await, Notice::Lost);

        assert!(before.elapsed() >= PAUSE_MIN);
        assert!(matches!(monitor.connection, Connection::Open(_)));
    });
}
