//! Records of subjects that were erased are not stored, though streams and error objects still hold them.

use shared::erasure::{Subject, remember};

use super::*;

async fn erase(lake: &Lake, condition: &str) {
    let subject = Subject::parse(condition).unwrap();
    let (state, random) = (lake.ports.state.as_ref(), &*lake.ports.random);
    remember(state, random, &subject, None, lake.ports.clock.now_ms()).await.unwrap();
}

#[tokio::test]
async fn buffered_records_of_an_erased_subject_are_left_out_and_new_ones_stored() {
    let lake = Lake::new().await;
    lake.put_ids(1..10).await;
    erase(&lake, "id IN (3, 5)").await;
    lake.clock.advance(1);
    lake.put_ids(3..4).await;
    let report = lake.batcher().flush("flights").await.unwrap();
    // Of the two bad records, 5 and none else, one was erased.
    assert_eq!((report.erased, report.stored, report.rejected, report.missing), (2, 8, 0, 0));
    assert_eq!(lake.contents().await.stored, [1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(lake.batcher().flush("flights").await.unwrap().records, 0, "the position is behind what was left out");
}

#[tokio::test]
async fn an_interval_of_erased_records_alone_is_done() {
    let lake = Lake::new().await;
    lake.put_ids(3..4).await;
    erase(&lake, "id = 3").await;
    let report = lake.batcher().flush("flights").await.unwrap();
    assert_eq!((report.erased, report.stored, report.commits), (1, 0, 1));
    assert_eq!(lake.batcher().flush("flights").await.unwrap().commits, 0);
}

#[tokio::test]
async fn a_replay_of_errors_stores_no_erased_record() {
    let lake = Lake::new().await;
    lake.put(&[r#"{"id":"3"}"#.into(), r#"{"id":"4"}"#.into()]).await;
    assert_eq!(lake.batcher().flush("flights").await.unwrap().rejected, 2);
    erase(&lake, "id = 3").await;
    let request = Request { body: "{}".into(), ..Request::new("POST", "/streams/flights/errors/replay", "r") };
    let response =
        lake.batcher().handle(Event::Http(request)).await.unwrap().response().unwrap().whole().await.unwrap();
    let answer: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&answer["replayed"], &answer["failing"]), (&json!(0), &json!(1)), "{answer}");
}
