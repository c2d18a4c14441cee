//! How connections end: a client's half, all of it, and for somebody else.

use super::*;

#[tokio::test]
async fn all_that_was_asked_before_the_clients_end_is_answered() {
    let mut it = relayed();
    let request = b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n";
    it.client.write_all(&request.repeat(3)).await.unwrap();
    it.client.shutdown().await.unwrap();
    let mut docker = accept(&it.docker).await;
    for _ in 0..3 {
        expect(&mut docker, request).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        docker.write_all(answer).await.unwrap();
        expect(&mut it.client, answer).await;
    }
    assert_eq!(rest(&mut docker).await, "", "then the end is passed on");
}

#[tokio::test]
async fn a_client_that_goes_with_requests_unanswered_takes_docker_along() {
    let mut it = relayed();
    let request = b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n";
    it.client.write_all(&request.repeat(2)).await.unwrap();
    let mut docker = accept(&it.docker).await;
    expect(&mut docker, request).await;
    drop(it.client);
    assert_eq!(rest(&mut docker).await, "");
    drop(docker);
    timeout(LIMIT, it.relay).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_is_served_stays_and_an_idle_one_gives_way() {
    let seats = Arc::new(Seats::new(1));
    let mut it = relayed_among(Arc::clone(&seats));
    let seat = seats.enter().await.unwrap();
    it.client
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut docker = accept(&it.docker).await;
    assert!(seats.enter().await.is_none(), "it waits for its answer");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    docker.write_all(answer).await.unwrap();
    expect(&mut it.client, answer).await;

    let newcomer = tokio::spawn(async move { seats.enter().await });
    assert_eq!(rest(&mut it.client).await, "");
    timeout(LIMIT, it.relay).await.unwrap().unwrap();
    drop(seat);
    assert!(newcomer.await.unwrap().is_some());
}
