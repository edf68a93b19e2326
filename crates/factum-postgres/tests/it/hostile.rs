//! Names that a statement must quote.

use crate::fresh::Fresh;

#[tokio::test]
async fn a_role_with_a_hostile_name_gets_its_grants_and_nothing_else_happens() {
    let fresh = Fresh::open().await;
    let server = fresh.schema.raw().await;
    let schema = fresh.schema.name.parse().unwrap();
    for (n, name) in ["Upper Case", "a\"; DROP TABLE @.events; --", "it's\\'", "jürgen ☃", "$$;"]
        .iter()
        .enumerate()
    {
        let name = format!("{}_{n} {}", std::process::id(), name.replace('@', "factum"));
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        server.batch_execute(&format!("CREATE ROLE {quoted}")).await.unwrap();
        let grants = factum_postgres::grants_sql(&schema, &name.parse().unwrap());
        let granted = server.batch_execute(&grants).await;
        let may = "SELECT has_table_privilege($1::text, $2::text, 'INSERT')";
        let events = format!("{}.events", fresh.schema.name);
        let row = server.query_one(may, &[&name, &events]).await;
        server.batch_execute(&format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}")).await.unwrap();
        granted.unwrap();
        assert!(row.unwrap().get::<_, bool>(0), "{name}");
    }
}
