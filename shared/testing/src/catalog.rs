//! What every [`Catalog`] must do.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use url::Url;

use super::kind;
use shared::ErrorKind;
use shared::catalog::{
    Catalog, Database, KeyFilter, NULL_VALUE, Partition, StorageDescriptor, Table, TableInput, Wanted, ensure_database,
};
use shared::model::{Column, ColumnType, TableName};

/// What an emulator of Glue lacks, so that the rest of the contract can be asserted on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gaps {
    /// It keeps no earlier versions of tables.
    pub table_versions: bool,
    /// Of updates that meet, more than one wins.
    pub races: bool,
}

/// Asserts the contract of [`Catalog`] on an adapter without databases whose names begin with `conformance`.
pub async fn conforms(catalog: Arc<dyn Catalog>) {
    conforms_but_for(catalog, Gaps::default()).await;
}

/// As [`conforms`], but for what an emulator lacks.
pub async fn conforms_but_for(catalog: Arc<dyn Catalog>, gaps: Gaps) {
    databases_are_kept_as_declared(&*catalog).await;
    a_database_with_tables_stays(&*catalog).await;
    tables_are_kept_as_declared(&*catalog).await;
    if !gaps.table_versions {
        every_version_of_a_table_is_kept(&*catalog).await;
    }
    a_stale_version_changes_nothing(&*catalog).await;
    a_table_made_again_is_not_the_old_one(&*catalog).await;
    partitions_are_kept_in_order_of_their_values(&*catalog).await;
    partitions_are_chosen_by_the_values_of_their_columns(&*catalog).await;
    partitions_are_replaced_and_removed(&*catalog).await;
    what_is_not_there_is_not_found(&*catalog).await;
    if !gaps.races {
        one_of_many_racers_wins(catalog).await;
    }
}

fn name(table: &str) -> TableName {
    TableName::new("conformance", table).unwrap()
}

/// A file table partitioned by `year` and `city`.
fn input(table: &str, location: &str) -> TableInput {
    let storage = StorageDescriptor {
        columns: vec![
            Column::new("a", ColumnType::BigInt),
            Column::new("b", "map<string,array<int>>".parse().unwrap()),
        ],
        location: location.into(),
        serde_library: Some("org.openx.data.jsonserde.JsonSerDe".into()),
        serde_parameters: BTreeMap::from([("paths".into(), "a,b".into())]),
        compressed: true,
        ..Default::default()
    };
    TableInput {
        name: name(table),
        description: Some("Größe — `quoted`".into()),
        table_type: "EXTERNAL_TABLE".into(),
        parameters: BTreeMap::from([("classification".into(), "json".into())]),
        storage,
        partition_keys: vec![Column::new("year", ColumnType::Int), Column::new("city", ColumnType::String)],
    }
}

fn partition(values: [&str; 2]) -> Partition {
    // As Hive writes a value in a key, and as a URL writes a key.
    let city = values[1].replace('%', "%25").replace('/', "%2F");
    let mut location = Url::parse("s3://bucket/t").unwrap();
    location.path_segments_mut().unwrap().extend([
        format!("year={}", values[0]),
        format!("city={city}"),
        String::new(),
    ]);
    let location = location.to_string();
    Partition {
        values: values.map(str::to_owned).to_vec(),
        storage: StorageDescriptor { location, ..Default::default() },
        parameters: BTreeMap::from([("n".into(), "1".into())]),
    }
}

/// Filters for the first values of a partition.
fn those_of(values: &[&str]) -> Vec<KeyFilter> {
    let one = |(column, value): (&str, &&str)| one_of(column, &[value]);
    ["year", "city"].into_iter().zip(values).map(one).collect()
}

fn one_of(column: &str, values: &[&str]) -> KeyFilter {
    KeyFilter { column: column.into(), wanted: Wanted::OneOf(values.iter().map(|&v| v.to_owned()).collect()) }
}

fn within(column: &str, from: Bound<&str>, to: Bound<&str>) -> KeyFilter {
    KeyFilter { column: column.into(), wanted: Wanted::Within(from.map(str::to_owned), to.map(str::to_owned)) }
}

async fn databases_are_kept_as_declared(catalog: &dyn Catalog) {
    let database = Database {
        name: "conformance".into(),
        description: Some("x".into()),
        location: Some("s3://bucket/x/".into()),
        parameters: BTreeMap::from([("k".into(), "v".into())]),
    };
    catalog.create_database(&database).await.unwrap();
    assert_eq!(kind(catalog.create_database(&database).await), ErrorKind::Conflict);
    ensure_database(catalog, "conformance").await.unwrap();
    assert_eq!(catalog.get_database("conformance").await.unwrap(), database);
    ensure_database(catalog, "conformance_a").await.unwrap();
    let names: Vec<_> = catalog.list_databases().await.unwrap().into_iter().map(|d| d.name).collect();
    let names: Vec<_> = names.iter().filter(|n| n.starts_with("conformance")).collect();
    assert_eq!(names, ["conformance", "conformance_a"]);
    let wrong = Database { name: "Not Lowercase".into(), ..database };
    assert_eq!(kind(catalog.create_database(&wrong).await), ErrorKind::Invalid);
}

async fn a_database_with_tables_stays(catalog: &dyn Catalog) {
    catalog.create_table(&input("kept", "s3://bucket/kept/")).await.unwrap();
    assert_eq!(kind(catalog.delete_database("conformance").await), ErrorKind::Conflict);
    catalog.delete_table(&name("kept")).await.unwrap();
    catalog.delete_database("conformance_a").await.unwrap();
    assert_eq!(kind(catalog.get_database("conformance_a").await), ErrorKind::NotFound);
}

async fn tables_are_kept_as_declared(catalog: &dyn Catalog) {
    let declared = input("t", "s3://bucket/t/");
    let created = catalog.create_table(&declared).await.unwrap();
    assert_eq!(created.input, declared);
    assert_eq!(catalog.get_table(&name("t")).await.unwrap(), created);
    assert_eq!(kind(catalog.create_table(&declared).await), ErrorKind::Conflict);
    catalog.create_table(&input("a", "s3://bucket/a/")).await.unwrap();
    let tables = catalog.list_tables("conformance").await.unwrap();
    assert_eq!(tables.iter().map(|t| t.input.name.table.as_str()).collect::<Vec<_>>(), ["a", "t"]);
    assert_eq!(tables[1], created);
}

async fn every_version_of_a_table_is_kept(catalog: &dyn Catalog) {
    let first = catalog.get_table(&name("t")).await.unwrap();
    let second = catalog.update_table(&input("t", "s3://bucket/2/"), &first.version).await.unwrap();
    let third = catalog.update_table(&input("t", "s3://bucket/3/"), &second.version).await.unwrap();
    assert_eq!(catalog.get_table(&name("t")).await.unwrap(), third);
    assert_eq!(third.created_ms, first.created_ms);
    let told = |table: &Table| (table.input.clone(), table.version.clone());
    let versions: Vec<_> = catalog.table_versions(&name("t")).await.unwrap().iter().map(told).collect();
    assert_eq!(versions, [&third, &second, &first].map(told));
}

async fn a_stale_version_changes_nothing(catalog: &dyn Catalog) {
    let first = catalog.get_table(&name("t")).await.unwrap();
    let second = catalog.update_table(&input("t", "s3://bucket/4/"), &first.version).await.unwrap();
    for stale in [first.version.as_str(), "no version", ""] {
        let refused = catalog.update_table(&input("t", "s3://bucket/x/"), stale).await;
        assert_eq!(kind(refused), ErrorKind::Conflict, "{stale}");
    }
    assert_eq!(catalog.get_table(&name("t")).await.unwrap(), second);
}

async fn a_table_made_again_is_not_the_old_one(catalog: &dyn Catalog) {
    let old = catalog.create_table(&input("again", "s3://bucket/1/")).await.unwrap();
    catalog.create_partitions(&name("again"), &[partition(["2013", "x"])]).await.unwrap();
    catalog.delete_table(&name("again")).await.unwrap();
    assert_eq!(kind(catalog.get_table(&name("again")).await), ErrorKind::NotFound);
    let new = catalog.create_table(&input("again", "s3://bucket/2/")).await.unwrap();
    assert_eq!(catalog.get_table(&name("again")).await.unwrap(), new);
    assert_eq!(catalog.list_partitions(&name("again"), &[]).await.unwrap(), []);
    let refused = catalog.update_table(&input("again", "s3://bucket/3/"), &old.version).await;
    assert_eq!(kind(refused), ErrorKind::Conflict);
}

async fn partitions_are_kept_in_order_of_their_values(catalog: &dyn Catalog) {
    let sorted = [["2012", "z"], ["2013", ""], ["2013", "Zürich / 100%"], ["2013", "a"], ["20130", "a"], ["2014", "b"]];
    let declared: Vec<_> = sorted.iter().map(|values| partition(*values)).collect();
    let mut shuffled = declared.clone();
    shuffled.rotate_left(4);
    assert_eq!(catalog.create_partitions(&name("t"), &shuffled).await.unwrap(), Vec::<Vec<String>>::new());
    let list = async |values: &[&str]| catalog.list_partitions(&name("t"), &those_of(values)).await.unwrap();
    assert_eq!(list(&[]).await, declared);
    assert_eq!(list(&["2013"]).await, declared[1..4]);
    assert_eq!(list(&["2013", "a"]).await, declared[3..4]);
    assert_eq!(list(&["201"]).await, []);

    let mut changed = partition(["2013", "a"]);
    changed.storage.location = "s3://bucket/changed/".into();
    let again = catalog.create_partitions(&name("t"), &[changed, partition(["2015", "c"])]).await.unwrap();
    assert_eq!(again, [["2013", "a"]]);
    assert_eq!(list(&["2013", "a"]).await, declared[3..4], "one that exists is left as it is");
    assert_eq!(list(&["2015"]).await.len(), 1, "the others are added");

    let short = Partition { values: vec!["2016".into()], ..partition(["", ""]) };
    let refused = catalog.create_partitions(&name("t"), &[partition(["2016", "d"]), short]).await;
    assert_eq!(kind(refused), ErrorKind::Invalid);

    let many: Vec<_> = (0..250).map(|i| format!("{i:03}")).map(|city| partition(["2020", &city])).collect();
    catalog.create_partitions(&name("t"), &many).await.unwrap();
    assert_eq!(list(&["2020"]).await, many);
}

async fn partitions_are_chosen_by_the_values_of_their_columns(catalog: &dyn Catalog) {
    let mut declared = input("chosen", "s3://bucket/chosen/");
    declared.partition_keys.push(Column::new("day", ColumnType::Date));
    catalog.create_table(&declared).await.unwrap();
    let partition = |values: [&str; 3]| {
        let storage =
            StorageDescriptor { location: format!("s3://bucket/chosen/{}/", values[0]), ..Default::default() };
        Partition { values: values.map(str::to_owned).to_vec(), storage, parameters: BTreeMap::new() }
    };
    let rows = [
        ["007", "Roma", "2013-01-31"],
        ["10", "Roma", "2013-02-01"],
        ["7", "l'Aquila", "2013-01-01"],
        ["8", "Zürich", "2012-12-31"],
        ["9", "Genova", "2013-01-15"],
    ];
    catalog.create_partitions(&name("chosen"), &rows.map(partition)).await.unwrap();
    for (filters, expected) in [
        (vec![one_of("year", &["7"])], vec![0, 2]),
        (vec![one_of("city", &["l'Aquila", "Zürich", "Oslo"])], vec![2, 3]),
        (vec![one_of("city", &["Roma"]), one_of("year", &["10", "8"])], vec![1]),
        (vec![within("year", Bound::Excluded("7"), Bound::Included("9"))], vec![3, 4]),
        (vec![within("year", Bound::Included("10"), Bound::Unbounded)], vec![1]),
        (vec![within("city", Bound::Included("H"), Bound::Excluded("S"))], vec![0, 1]),
        (vec![within("city", Bound::Unbounded, Bound::Excluded("Zürich"))], vec![0, 1, 4]),
        (vec![within("day", Bound::Included("2013-01-01"), Bound::Excluded("2013-02-01"))], vec![0, 2, 4]),
        (vec![one_of("day", &["2013-01-01", "2012-12-31"])], vec![2, 3]),
        (vec![one_of("day", &["1999-01-01"])], vec![]),
    ] {
        let found = catalog.list_partitions(&name("chosen"), &filters).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| partition(rows[at])).collect();
        assert_eq!(found, expected, "{filters:?}");
    }
    // A value that is none of its column's type may be anything, and null is equal to nothing.
    let odd = [["8", "x", NULL_VALUE], ["old", "x", "2013-01-01"]];
    catalog.create_partitions(&name("chosen"), &odd.map(partition)).await.unwrap();
    let found = catalog.list_partitions(&name("chosen"), &[one_of("year", &["8"])]).await.unwrap();
    assert_eq!(found, [rows[3], odd[0], odd[1]].map(partition));
    let found = catalog.list_partitions(&name("chosen"), &[one_of("day", &["2012-12-31"])]).await.unwrap();
    assert_eq!(found, [partition(rows[3])]);
    catalog.delete_table(&name("chosen")).await.unwrap();
}

async fn partitions_are_replaced_and_removed(catalog: &dyn Catalog) {
    let mut changed = partition(["2013", "a"]);
    changed.storage.location = "s3://bucket/changed/".into();
    let update = async |partitions: &[Partition]| catalog.update_partitions(&name("t"), partitions).await.unwrap();
    let absent = update(&[partition(["1999", "a"]), changed.clone(), partition(["1998", "a"])]).await;
    assert_eq!(absent, [["1999", "a"], ["1998", "a"]]);
    assert_eq!(catalog.list_partitions(&name("t"), &those_of(&["2013", "a"])).await.unwrap(), [changed.clone()]);
    assert_eq!(catalog.list_partitions(&name("t"), &those_of(&["1999"])).await.unwrap(), [], "none is made");
    let mut many = catalog.list_partitions(&name("t"), &those_of(&["2020"])).await.unwrap();
    many.iter_mut().for_each(|partition| partition.storage.columns = vec![Column::new("c", ColumnType::Int)]);
    assert_eq!((many.len(), update(&many).await), (250, Vec::new()));
    assert_eq!(catalog.list_partitions(&name("t"), &those_of(&["2020"])).await.unwrap(), many);
    assert_eq!(update(&[]).await, Vec::<Vec<String>>::new());
    let removed = [changed.values.clone(), vec!["1999".into(), "a".into()]];
    catalog.delete_partitions(&name("t"), &removed).await.unwrap();
    assert_eq!(catalog.list_partitions(&name("t"), &those_of(&["2013", "a"])).await.unwrap(), []);
    assert_eq!(catalog.list_partitions(&name("t"), &those_of(&["2013"])).await.unwrap().len(), 2);
}

async fn what_is_not_there_is_not_found(catalog: &dyn Catalog) {
    let absent = name("absent");
    let error = catalog.get_table(&absent).await.unwrap_err();
    assert!(error.to_string().contains("`conformance.absent`"), "{error}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let nowhere = TableInput { name: TableName::new("nowhere", "t").unwrap(), ..input("t", "s3://b/") };
    let values = vec!["2013".to_owned(), "a".to_owned()];
    for found in [
        kind(catalog.get_database("nowhere").await),
        kind(catalog.delete_database("nowhere").await),
        kind(catalog.create_table(&nowhere).await),
        kind(catalog.list_tables("nowhere").await),
        kind(catalog.update_table(&input("absent", "s3://b/"), "1").await),
        kind(catalog.delete_table(&absent).await),
        kind(catalog.table_versions(&absent).await),
        kind(catalog.create_partitions(&absent, &[partition(["2013", "a"])]).await),
        kind(catalog.list_partitions(&absent, &[]).await),
        kind(catalog.update_partitions(&absent, &[partition(["2013", "a"])]).await),
        kind(catalog.delete_partitions(&absent, &[values]).await),
    ] {
        assert_eq!(found, ErrorKind::NotFound);
    }
}

async fn one_of_many_racers_wins(catalog: Arc<dyn Catalog>) {
    let mut table = catalog.create_table(&input("race", "s3://bucket/race/")).await.unwrap();
    for round in 0..5 {
        let racers = (0..8).map(|racer| {
            let (catalog, version) = (catalog.clone(), table.version.clone());
            let changed = input("race", &format!("s3://bucket/{round}/{racer}/"));
            tokio::spawn(async move { catalog.update_table(&changed, &version).await })
        });
        let mut winners = Vec::new();
        for result in racers.collect::<Vec<_>>() {
            match result.await.unwrap() {
                Ok(table) => winners.push(table),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        table = catalog.get_table(&name("race")).await.unwrap();
        assert_eq!(winners, [table.clone()]);
    }
}
