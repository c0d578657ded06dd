//! What a store can do is found out without leaving anything, and what others left open in a bucket is found.

use repository::store::{Ability, Did, ErrorKind, S3Store, Store};
use repository::{Credentials, S3Options};

use crate::line::{Line, Rule, Trouble};
use crate::versitygw::Versitygw;

async fn store(options: S3Options) -> S3Store {
    S3Store::new(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tries_everything_and_leaves_nothing() {
    let server = Versitygw::start();
    let store = store(server.options("x")).await;
    let tried = store.probe("doctor.probe.1/").await;
    assert_eq!(tried.len(), 8, "{tried:?}");
    assert!(tried.iter().all(|(_, did)| matches!(did, Did::Well)), "{tried:?}");
    assert!(store.list("").await.unwrap().is_empty());
    assert!(store.open_uploads("").await.unwrap().is_empty());
    let (reached, time) = store.reach().await;
    reached.unwrap();
    let apart = time.unwrap().duration_since(jiff::Timestamp::now()).abs();
    assert!(apart.as_secs() < 60, "{apart}");
}

/// Such stores are told of, and not that the keys may not: nobody could mend that. The condition is signed, so a line that took it out
/// of the request would have it refused; a store that does not know it says what this line says.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_all_the_same_or_lists_no_uploads_is_told_from_one_that_refuses() {
    let server = Versitygw::start();
    let mut options = server.options("x");
    let line = Line::to(&format!("127.0.0.1:{}", options.endpoint.unwrap().port().unwrap())).await;
    options.endpoint = Some(line.url().parse().unwrap());
    let store = store(options).await;
    let otherwise = async || -> Vec<(Ability, &'static str)> {
        let tried = store.probe("doctor.probe.1/").await;
        assert_eq!(tried.len(), 8, "{tried:?}");
        assert!(tried.iter().all(|(_, did)| !matches!(did, Did::Failed(_))), "{tried:?}");
        let otherwise = |(ability, did): (Ability, Did)| match did {
            Did::Otherwise(how) => Some((ability, how)),
            Did::Well | Did::Failed(_) => None,
        };
        tried.into_iter().filter_map(otherwise).collect()
    };
    assert!(otherwise().await.is_empty(), "the line as such changes nothing");

    line.trouble(Rule::always(Trouble::LoseObject).of("PUT", "/first").carrying("if-none-match"));
    line.trouble(Rule::always(Trouble::Answer(501, "NotImplemented")).of("GET", "?uploads"));
    assert_eq!(
        otherwise().await,
        [
            (Ability::PutNew, "it overwrites all the same"),
            (Ability::Multipart, "it says that it does not know how to list it")
        ]
    );
    assert_eq!((line.struck("PUT", "/first"), line.struck("GET", "?uploads")), (1, 1));

    line.heal();
    line.trouble(Rule::always(Trouble::Answer(501, "NotImplemented")).of("PUT", "/first").carrying("if-none-match"));
    assert_eq!(otherwise().await, [(Ability::PutNew, "it says that it does not know how")]);
    line.heal();
    assert!(store.list("").await.unwrap().is_empty() && store.open_uploads("").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_is_told_and_what_needs_an_object_is_not_tried() {
    let server = Versitygw::start();
    let wrong = Credentials::Given { id: "tester".to_owned(), secret: "wrong".into(), token: None };
    let store = store(S3Options { credentials: wrong, ..server.options("x") }).await;
    let (reached, time) = store.reach().await;
    assert_eq!(reached.unwrap_err().kind(), ErrorKind::AccessDenied);
    assert!(time.is_some(), "a refusal has the time too: a clock that is off is why some are refused");
    let tried = store.probe("doctor.probe.1/").await;
    let abilities: Vec<_> = tried.iter().map(|(ability, _)| *ability).collect();
    assert_eq!(abilities, [Ability::Put, Ability::Multipart, Ability::Delete], "{tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_others_left_open_are_found_below_our_folder_and_given_up() {
    let server = Versitygw::start();
    let (ours, theirs) = (store(server.options("ours")).await, store(server.options("")).await);
    let begun = ours.begin_multipart("shop/data").await.unwrap();
    ours.put_part(&begun, 1, "part".into()).await.unwrap();
    theirs.begin_multipart("theirs/data").await.unwrap();
    let open = ours.open_uploads("").await.unwrap();
    assert_eq!(open.iter().map(|open| &open.upload).collect::<Vec<_>>(), [&begun]);
    let age = jiff::Timestamp::now().duration_since(open[0].last_sign).abs();
    assert!(age.as_secs() < 60, "{age}");
    ours.abort_upload(&open[0].upload).await.unwrap();
    ours.abort_upload(&open[0].upload).await.unwrap(); // somebody else was faster
    assert!(ours.open_uploads("").await.unwrap().is_empty());
    assert_eq!(theirs.open_uploads("").await.unwrap().len(), 1, "another folder's is not touched");
}
