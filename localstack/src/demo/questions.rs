//! What the demo asks in SQL. Results are counts, or numbers rounded so that no order of adding shows.

/// A question, its SQL, the name of its answer.
pub(super) struct Question {
    pub name: &'static str,
    pub text: &'static str,
    pub sql: &'static str,
}

pub(super) const QUESTIONS: [Question; 6] = [
    Question {
        name: "year",
        text: "What happened in the year?",
        sql: "SELECT count(*) AS flights, sum(CASE WHEN cancelled THEN 1 ELSE 0 END) AS cancelled, \
              count(DISTINCT carrier) AS airlines, count(DISTINCT dest) AS destinations, \
              count(DISTINCT tailnum) AS planes, min(flight_date) AS first_day, max(flight_date) AS last_day \
              FROM curated.flights",
    },
    Question {
        name: "carriers",
        text: "Which airlines keep you waiting?",
        sql: "SELECT carrier_name AS airline, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay, \
              round(100e0 * sum(CASE WHEN dep_delay > 15 THEN 1 ELSE 0 END) / count(dep_delay), 1) AS late_percent, \
              round(100e0 * sum(CASE WHEN cancelled THEN 1 ELSE 0 END) / count(*), 1) AS cancelled_percent \
              FROM curated.flights GROUP BY carrier_name ORDER BY mean_delay DESC, airline",
    },
    Question {
        name: "airports",
        text: "Which airport is the most punctual?",
        sql: "SELECT origin_name AS airport, count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay, \
              round(100e0 * sum(CASE WHEN dep_delay > 15 THEN 1 ELSE 0 END) / count(dep_delay), 1) AS late_percent \
              FROM curated.flights GROUP BY origin_name ORDER BY mean_delay, airport",
    },
    Question {
        name: "weather",
        text: "What does the weather do to departures?",
        sql: "SELECT CASE WHEN visib < 1 THEN '1 below 1 mile' WHEN visib < 3 THEN '2 1 to 3 miles' \
              WHEN visib < 6 THEN '3 3 to 6 miles' WHEN visib < 10 THEN '4 6 to 10 miles' ELSE '5 10 miles' END AS visibility, \
              count(*) AS flights, round(avg(dep_delay), 1) AS mean_delay, \
              round(100e0 * sum(CASE WHEN cancelled THEN 1 ELSE 0 END) / count(*), 1) AS cancelled_percent \
              FROM curated.flights WHERE visib IS NOT NULL GROUP BY 1 ORDER BY 1",
    },
    Question {
        name: "planes",
        text: "Whose planes fly most?",
        sql: "SELECT manufacturer, count(*) AS flights, count(DISTINCT tailnum) AS planes, \
              round(avg(seats), 0) AS mean_seats FROM curated.flights WHERE manufacturer IS NOT NULL \
              GROUP BY manufacturer ORDER BY flights DESC, manufacturer LIMIT 5",
    },
    Question {
        name: "days",
        text: "On which days was it best to stay at home?",
        sql: "SELECT flight_date AS day, sum(planned) AS planned, sum(cancelled) AS cancelled, \
              round(1e0 * sum(delay_minutes) / sum(departures), 1) AS mean_delay \
              FROM curated.daily_delays GROUP BY flight_date ORDER BY cancelled DESC, day LIMIT 5",
    },
];

/// Every day's flights, for the charts.
pub(super) const DAILY: &str = "SELECT flight_date AS day, sum(departures) AS departures, sum(cancelled) AS cancelled \
    FROM curated.daily_delays GROUP BY flight_date ORDER BY flight_date";

/// The weather of some days (UTC), as an explanation of what was unusual; `{days}` stands for them.
pub(super) const WEATHER_OF_DAYS: &str = "SELECT CAST(time_hour AS DATE) AS day, round(min(temp), 0) AS coldest_f, \
    round(max(wind_speed), 0) AS strongest_wind_mph, round(max(precip), 2) AS most_rain_in, round(min(visib), 2) AS least_visibility \
    FROM nyc.weather WHERE CAST(time_hour AS DATE) IN ({days}) GROUP BY 1 ORDER BY 1";
